// A model ready to run: reads the file once, plans once per set of input shapes, runs as often as wanted from any
// number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "graph/away.h"
#include "plan/lowering.h"
#include "plan/survey.h"

namespace secateur {

// Everything decided for one set of input shapes. Read-only after it is made, frames apart.
struct Plan {
  std::vector<Dims> input_dims;
  std::vector<Step> steps;
  std::vector<std::pair<std::string, Choice>> decisions;  // SavedPlan::layers
  std::vector<Value> values;                              // what pointers stand for
  std::vector<void*> constants;                           // pointer per value, null where the frame's arena holds it
  std::vector<int> input_ids, output_ids;
  // The values in the memory of an input or output that may be a caller's own; none where it is copied.
  std::vector<std::vector<int>> lent_inputs, lent_outputs;
  size_t arena_bytes = 0;

  // Memory of one run in progress; kept for the next.
  struct Frame {
    Buffer arena;
    std::vector<void*> ptr;
  };
  std::vector<std::unique_ptr<Frame>> free_frames;  // guarded by the session's lock
};

class Session {
 public:
  // Sniffs .sct or ONNX. `threads` >= 1; 0 = all the CPUs this process may use.
  // `allow_sparse` = false leaves zeros in dense kernels: the yardstick of "never slower than our own dense".
  // `tuner`: its mode, what is known and saved plans, whose shapes are planned at once; the session fills the rest.
  // `allow_plain_loops` = false refuses what no kernel computes (Lowering::plain_loops).
  // `limits`: what one run may take; more is a UsageError when it is planned. `level`: of a .sct file that has several.
  Session(std::span<const uint8_t> bytes, int threads, bool allow_sparse = true, Tuner tuner = {},
          bool allow_plain_loops = true, Limits limits = {}, int level = 0);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const std::vector<ValueInfo>& inputs() const { return inputs_; }
  const std::vector<ValueInfo>& outputs() const { return outputs_; }
  size_t n_nodes() const { return n_nodes_; }  // of the file
  int threads() const { return n_threads_; }
  Isa isa() const { return isa_; }
  const Graph& graph() const { return graph_; }                     // after the passes
  const std::vector<std::string>& notes() const { return notes_; }  // what the passes did
  // Whether every node was planned when the session was made, for sizes that were guessed where axes are free.
  bool planned() const { return planned_; }

  // One run: take, fill the inputs, run, read the outputs, let go. Inputs and outputs live in the frame's arena.
  class Lease {
   public:
    Lease(Session& session, const std::vector<Dims>& input_dims);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    void* input(size_t i) const { return frame_->ptr[static_cast<size_t>(plan_->input_ids[i])]; }
    size_t input_bytes(size_t i) const { return plan_->values[static_cast<size_t>(plan_->input_ids[i])].nbytes(); }
    const void* output(size_t i) const { return frame_->ptr[static_cast<size_t>(plan_->output_ids[i])]; }
    const Value& output_value(size_t i) const { return plan_->values[static_cast<size_t>(plan_->output_ids[i])]; }
    // Before run(): the input is read where it lies, the output made where it will stay, behind which kSlack bytes may
    // be read. Not of every value (Plan::lent_inputs, lent_outputs).
    bool lends_input(size_t i) const { return !plan_->lent_inputs[i].empty(); }
    bool lends_output(size_t i) const { return !plan_->lent_outputs[i].empty(); }
    void lend_input(size_t i, const void* bytes) { lend(plan_->lent_inputs[i], const_cast<void*>(bytes)); }
    void lend_output(size_t i, void* bytes) { lend(plan_->lent_outputs[i], bytes); }
    const Plan& plan() const { return *plan_; }
    // UsageError: the data had an index outside its axis. The outputs then are of no use; the session goes on.
    void run() const;
    // Seconds per step, median of `repeats` runs.
    std::vector<double> profile(int repeats) const;

   private:
    void refuse(const Faults::Fault& fault) const;
    void lend(const std::vector<int>& ids, void* bytes);

    Session& session_;
    std::shared_ptr<Plan> plan_;
    std::unique_ptr<Plan::Frame> frame_;
    std::vector<int> lent_;  // values whose memory is not the arena's
  };

  // What would run for these shapes; allocates no activations.
  std::shared_ptr<const Plan> plan(const std::vector<Dims>& input_dims);

  // The decisions of the plans made so far, in the order of their last use.
  std::vector<SavedPlan> decisions();
  int64_t n_timed();                                         // layers timed in this session
  std::vector<std::pair<std::string, Choice>> take_timed();  // those since the last call, by their keys

  // Declared shapes with free dimensions set to `free`.
  std::vector<Dims> declared_dims(int64_t free) const;

 private:
  friend class Lease;
  void plan_ahead();
  Survey try_guess(const Guess& guess);
  std::shared_ptr<Plan> plan_for(const std::vector<Dims>& input_dims);  // lock held
  std::shared_ptr<Plan> make_plan(const std::vector<Dims>& input_dims);

  Graph graph_;
  std::vector<ValueInfo> inputs_, outputs_;
  std::vector<std::string> notes_;
  Isa isa_ = Isa::kRef;
  size_t n_nodes_ = 0;
  int n_threads_ = 1;
  bool allow_sparse_ = true, allow_plain_loops_ = true;
  bool planned_ = false;
  std::unique_ptr<Threads> pool_;  // null with one thread: then runs need no lock
  std::mutex mutex_;               // plans, frames, pack cache
  PackCache cache_;
  Away away_;  // weights that only another plan would read
  Tuner tuner_;
  Limits limits_;
  std::vector<std::shared_ptr<Plan>> plans_;  // most recently used last
};

// Replaces nodes that depend on constants only by initializers; drops what nothing reads any more. Returns the number
// of nodes folded. `keep_dequantize`: DequantizeLinear nodes stay, so that passes still see quantized weights.
size_t fold_constants(Graph& graph, bool keep_dequantize = false, const Limits& limits = {});

// What a Session would refuse of a model, by name: every node, with the reason. `types`: element types and shapes of
// values, from elsewhere; those of the inputs count. Parts of the graph whose shapes stay unknown are left out.
struct Refusals {
  std::map<std::string, std::string> nodes;
  bool fits = true;  // the shapes do not contradict the graph
};
Refusals refusals(std::span<const uint8_t> bytes, const std::map<std::string, ValueInfo>& types);

// .sct or ONNX, by the first bytes.
Graph read_model(std::span<const uint8_t> bytes, int level = 0);

}  // namespace secateur
