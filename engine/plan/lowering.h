// From graph to steps: walks the nodes in order with every shape known, turns each into calls of kernels, computes at
// once what depends on constants only. One handler per operator (plan/lower/*.cc) does both its shape rule and its
// step, so that the two cannot disagree.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/arena.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/threads.h"
#include "graph/attrs.h"
#include "graph/graph.h"
#include "plan/folding.h"
#include "plan/packing.h"
#include "plan/tune.h"

namespace secateur {

using Dims = std::vector<int64_t>;

std::string dims_text(const Dims& dims);  // "[1, 20, 24, 24]"

// Data that a step cannot follow: an index outside its axis. The step reads a place that exists instead and goes on;
// who ran it looks here once, after the last step. Steps may report from any thread: the first one stays.
class Faults {
 public:
  struct Fault {
    const void* step = nullptr;           // the state of the step
    int64_t index = 0, at = 0, axis = 0;  // index number `at` of the step's indices, which an axis of that size has not
  };
  void report(const Fault& fault) noexcept {
    if (!taken_.test_and_set()) fault_ = fault;
  }
  const Fault* first() const { return fault_.step ? &fault_ : nullptr; }

 private:
  std::atomic_flag taken_ = ATOMIC_FLAG_INIT;
  Fault fault_;
};
std::string fault_text(const Faults::Fault& fault);  // "index 7 (number 3 of the indices) is outside ..."

// What a step sees while it runs. ptr[id] is the memory of value id.
struct Exec {
  void* const* ptr;
  Threads* threads;
  Faults* faults = nullptr;  // null: nobody asks

  const float* f32(int id) const { return id < 0 ? nullptr : static_cast<const float*>(ptr[id]); }
  float* f32_out(int id) const { return static_cast<float*>(ptr[id]); }
};

// For explain() and inspect().
struct StepInfo {
  std::string node, op, kernel, why;
  Dims in, out, weight;
  int64_t macs = 0;       // multiply-adds of the dense layer
  int64_t n_weights = 0;  // 0 when the step has none
  int64_t nnz = 0;
  int64_t packed_bytes = 0;
  std::string rate;          // which of Rates speaks of it: "<kernel>/<kind>"; empty where there is no cost model
  double predicted_us = -1;  // by the cost model, on one thread; -1 = there is none
  int64_t layer = -1;        // index of the file's node this came from
  double work = 0;           // operations, where they are many more than `macs` and the elements read and written
  // Reads nothing beside its inputs, needs no alignment and goes over them about once: they may lie in a caller's
  // memory.
  bool anywhere = false;
};

// What one run may take. A few bytes of a file can ask for any amount; who wants more than this says so.
struct Limits {
  double nbytes = 0;                           // of activations; 0: twice the machine's memory
  double work = 0;                             // multiply-adds, and elements read and written; 0: kMostWork
  static constexpr double kMostWork = 1e14;    // half an hour of one core in the fastest kernels
  static constexpr double kFoldedPart = 1e-3;  // of `work`, for the constants computed while loading
};

// a * b * ..., at most 2^62: counts of work of a file's sizes overflow.
int64_t product(std::initializer_list<int64_t> factors);

struct Step {
  void (*run)(const void* state, const Exec& exec) noexcept = nullptr;
  std::shared_ptr<const void> state;
  StepInfo info;
};

// How a value lies in memory. kQuads and kQuadRows are kernels/qconv/qconv.h's bytes: channels are axis 1, or the last
// axis with everything before it as the pixels of one image.
enum class ValueLayout { kPlain, kQuads, kQuadRows };

struct Value {
  std::string name;
  DType dtype = DType::kFloat;
  Dims dims;
  const uint8_t* constant = nullptr;  // its bytes, when known while planning
  std::shared_ptr<const void> owner;  // keeps them
  int storage = -1;                   // the value whose memory this one is (itself, or what a Reshape looks at)
  int first = -1, last = -1;          // steps between which a storage must live; first = -1: before the first step
  size_t offset = 0;
  bool is_input = false;
  bool is_scratch = false;  // a kernel's own room, not a result
  bool anywhere = true;  // of a storage: nothing reads it but steps that are `anywhere`, and of an input nothing writes
  ValueLayout layout = ValueLayout::kPlain;

  int64_t numel() const {
    int64_t n = 1;
    for (int64_t d : dims) n *= d;
    return n;
  }
  size_t nbytes() const {
    if (layout == ValueLayout::kPlain) return static_cast<size_t>(numel()) * dtype_size(dtype);
    const size_t axis = layout == ValueLayout::kQuads && dims.size() > 1 ? 1 : dims.size() - 1;
    int64_t n = (dims[axis] + 3) / 4 * 4;
    for (size_t i = 0; i < dims.size(); ++i)
      if (i != axis) n *= dims[i];
    return static_cast<size_t>(n);
  }
};

class Lowering {
 public:
  Lowering(const Graph& graph, PackCache& cache, Isa isa, int threads, bool allow_sparse = true);

  // Who decides beside the cost model (null: nobody), and the saved plan to follow (null: none).
  void set_tuner(Tuner* tuner, const SavedPlan* saved) { tuner_ = tuner, saved_ = saved; }
  // False: what only plain loops compute is refused, for another runtime to take (plain_loops()).
  void allow_plain_loops(bool allow) { allow_plain_loops_ = allow; }
  void set_limits(const Limits& limits);
  // Binds a graph input to a concrete shape.
  void bind_input(const ValueInfo& info, const Dims& dims);
  // Lowers one node (all its inputs are known by now).
  void lower(const Node& node);
  // Lowers the node if its inputs are all constant and returns true; else does nothing.
  bool fold(const Node& node);
  // Takes back what a node that threw has already named.
  void forget(const Node& node);
  // The value of this name, -1 when there is none (yet).
  int find(const std::string& name) const;
  void keep_until_end(int id);
  // Every decision of the saved plan was taken: else UsageError.
  void check_saved() const;
  const Packing& packing() const { return packing_; }
  // Assigns arena offsets; returns the arena's size.
  size_t plan_memory();

  // ---- for the handlers ----
  int64_t opset() const { return opset_; }
  Isa isa() const { return float_isa(isa_); }
  Isa int8_isa() const { return isa_; }
  int threads() const { return threads_; }
  bool allow_sparse() const { return allow_sparse_; }
  Tuner* tuner() const { return folding_.now ? nullptr : tuner_; }
  const Rates& rates() const { return tuner_ && tuner_->rates ? *tuner_->rates : shipped_rates(cpu()); }
  // What the saved plan says of the next layer that has a choice, which must be n; null without a saved plan.
  const Choice* saved_choice(const Node& n) const;
  void decided(const Node& n, Choice choice);
  const Value& value(int id) const { return values_[static_cast<size_t>(id)]; }
  const Dims& dims(int id) const { return value(id).dims; }
  int rank(int id) const { return static_cast<int>(value(id).dims.size()); }
  bool has(const Node& n, size_t i) const { return i < n.inputs.size() && !n.inputs[i].empty(); }
  int in(const Node& n, size_t i) const;      // required input
  int in_or(const Node& n, size_t i) const;   // -1 when left out
  int in_f32(const Node& n, size_t i) const;  // required, float32
  int out(const Node& n, size_t i, DType dtype, Dims dims, ValueLayout layout = ValueLayout::kPlain);
  void alias(const Node& n, size_t i, int source, Dims dims);
  int constant(const Node& n, size_t i, DType dtype, Dims dims, const void* bytes);  // copies; the value's number
  // Another name for a value, for handlers that hand work to one another.
  void name(int id, const std::string& name) { by_name_[name] = id; }
  // Constant integers (int64 or int32) or floats of an input; nothing when not constant.
  std::optional<std::vector<int64_t>> ints(int id) const;
  std::optional<std::vector<double>> numbers(int id) const;
  std::vector<int64_t> need_ints(const Node& n, size_t i) const;
  // A value of that shape, made by so much work, is within the limits. For handlers that refuse or allocate by a size
  // before they declare the value: what is beyond all measure is not handed over to another runtime either.
  void check_size(const Node& n, const Dims& dims, double work = 0) const;
  bool is_empty(const Dims& dims) const { return std::find(dims.begin(), dims.end(), 0) != dims.end(); }
  int scratch(size_t nbytes);
  int temp(DType dtype, Dims dims, ValueLayout layout = ValueLayout::kPlain);

  // make() packed for the constants `ids` (-1 skipped), shared over the plans of a model.
  template <class T, class F>
  std::shared_ptr<const T> packed(std::string key, const std::vector<int>& ids, F&& make) {
    bool shared = true;
    std::vector<const uint8_t*> constants;
    for (int id : ids) {
      if (id < 0) continue;
      constants.push_back(value(id).constant);
      shared = shared && !value(id).owner;
    }
    return packing_.get<T>(std::move(key), constants, shared, std::forward<F>(make));
  }

  // Adds a step; results without elements need none, so kernels never write nothing. S is a small struct with `void
  // run(const Exec&) const noexcept`.
  template <class S>
  void emit(const Node& n, S state, const std::vector<int>& reads, const std::vector<int>& writes, StepInfo info = {}) {
    auto owned = std::make_shared<const S>(std::move(state));
    add_step(
        n, [](const void* s, const Exec& e) noexcept { static_cast<const S*>(s)->run(e); }, std::move(owned), reads,
        writes, std::move(info));
  }

  // A handler is about to emit a plain loop of so many multiply-adds: an UnsupportedError where another runtime would
  // do a layer's worth of them better.
  void plain_loops(const Node& n, double macs, const std::string& why) const;
  [[noreturn]] void unsupported(const Node& n, const std::string& what) const;  // valid, not covered
  [[noreturn]] void invalid(const Node& n, const std::string& what) const;      // the graph contradicts itself

  std::vector<Step> steps;
  std::vector<std::pair<std::string, Choice>> decisions;

  void** pointers() { return ptr_.data(); }
  const std::vector<Value>& values() const { return values_; }

 private:
  void check_dims(const Node& n, const Dims& dims) const;
  void check_nbytes(double nbytes) const;
  void check_work(const Node& n, double total) const;
  const Node& named(const Node& n) const { return n.op.empty() && now_ ? *now_ : n; }  // temporaries come from no node
  int new_value(std::string name, DType dtype, Dims dims);
  void add_step(const Node& n, void (*run)(const void*, const Exec&) noexcept, std::shared_ptr<const void> state,
                const std::vector<int>& reads, const std::vector<int>& writes, StepInfo info);
  void count_work(const Node& n, const StepInfo& info, const std::vector<int>& reads, const std::vector<int>& writes);

  Packing packing_;
  Folding folding_;
  int64_t opset_ = 0;
  Isa isa_ = Isa::kRef;
  int threads_ = 1;
  bool allow_sparse_ = true, allow_plain_loops_ = true;
  Tuner* tuner_ = nullptr;
  const SavedPlan* saved_ = nullptr;
  double work_ = 0;  // of the steps so far
  Limits limits_;
  const Node* now_ = nullptr;  // the node being lowered
  std::vector<Value> values_;
  std::vector<void*> ptr_;
  std::unordered_map<std::string, int> by_name_;
};

// The operators known, for messages: "Add, AveragePool, ...".
std::string supported_operators();
// Null when the operator is not supported.
using LowerFn = void (*)(Lowering&, const Node&);
LowerFn find_operator(const std::string& domain, const std::string& op);

}  // namespace secateur
