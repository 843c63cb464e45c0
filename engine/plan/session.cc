#include "plan/session.h"

#include <algorithm>
#include <chrono>
#include <unordered_map>

#include "base/cpus.h"
#include "graph/check.h"
#include "graph/once.h"
#include "graph/onnx_raw.h"
#include "graph/onnx_read.h"
#include "graph/passes/passes.h"
#include "plan/lending.h"
#include "plan/lower/handlers.h"
#include "plan/support.h"

#if __has_include("formats/unpack.h")
#include "formats/unpack.h"
#define SECATEUR_READS_SCT 1
#endif

namespace secateur {
namespace {

constexpr size_t kMaxPlans = 8;
constexpr int64_t kFirstOpset = 1, kLastOpset = 23;

// Operands that operators have: passes read those that must be there without looking, and take those beyond for a fused
// bias or residual.
struct Arity {
  const char* op;
  size_t least, most;
};
constexpr Arity kArity[] = {
    {"Add", 2, 2},    {"Conv", 2, 3}, {"Constant", 0, 0}, {"Div", 2, 2}, {"Gemm", 2, 3}, {"LayerNormalization", 2, 3},
    {"MatMul", 2, 2}, {"Mul", 2, 2},  {"Pow", 2, 2},      {"Sub", 2, 2}};

void clean(Graph& graph) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    Node& n = graph.nodes[i];
    n.post.layer = static_cast<int64_t>(i);
    const auto found = std::find_if(std::begin(kArity), std::end(kArity), [&](const Arity& a) { return n.op == a.op; });
    const Arity a = found == std::end(kArity) ? Arity{nullptr, 1, SIZE_MAX} : *found;
    const std::string node = "node '" + node_label(n) + "' (" + n.op + ")";
    if (n.inputs.size() < a.least)
      throw FormatError(node + ": input " + std::to_string(n.inputs.size()) + " is missing");
    if (n.inputs.size() > a.most)
      throw FormatError(node + " has " + std::to_string(n.inputs.size()) + " inputs, at most " +
                        std::to_string(a.most) + " make sense");
  }
  std::erase_if(graph.nodes, [](const Node& n) { return n.outputs.empty(); });
}

void check_support(const Graph& graph) {
  const bool plain =
      std::any_of(graph.nodes.begin(), graph.nodes.end(), [](const Node& n) { return n.domain.empty(); });
  if (plain && !graph.opsets.count("")) throw FormatError("the model names no opset of the default domain");
  for (const auto& [domain, version] : graph.opsets) {
    if (!domain.empty()) continue;
    if (version < kFirstOpset || version > kLastOpset)
      throw UnsupportedError("the model uses ONNX opset " + std::to_string(version) +
                             ", supported: " + std::to_string(kFirstOpset) + " to " + std::to_string(kLastOpset) +
                             "; convert it (onnx.version_converter)");
  }
  const auto refused = unsupported_nodes(graph);
  if (refused.empty()) return;
  const Node& first = graph.nodes[refused.begin()->first];
  std::string message = "node '" + node_label(first) + "' (" + first.op + "): " + refused.begin()->second;
  size_t count = 0;
  for (const auto& [i, why] : refused) {
    const Node& n = graph.nodes[i];
    if (++count > 1 && count <= 9) message += (count == 2 ? "; nor are '" : ", '") + node_label(n) + "' (" + n.op + ")";
  }
  if (count > 9) message += " and " + std::to_string(count - 9) + " more";
  throw UnsupportedError(message + "; supported: " + supported_operators(), first.name);
}

// From the file's graph to what is planned.
void prepare(Graph& graph, std::vector<std::string>& notes, const Limits& limits = {}) {
  check_support(graph);
  for (const auto& in : graph.inputs) {
    if (!in.type.empty())
      throw UnsupportedError("input '" + in.name + "' is a " + type_text(in.type) + ", supported: tensors");
    if (dtype_size(in.dtype) == 0)
      throw UnsupportedError("input '" + in.name + "' has no supported element type (" + dtype_name(in.dtype) + ")");
    for (const Dim& d : in.shape)
      if (d.size > (int64_t{1} << 40))
        throw FormatError("input '" + in.name + "' has a dimension of " + std::to_string(d.size));
  }
  std::erase_if(graph.initializers, [](const Tensor& t) { return t.opaque(); });  // nobody reads them
  clean(graph);
  upgrade(graph, notes);
  expand_qoperators(graph, notes);
  fold_constants(graph, true, limits);
  remove_identities(graph, notes);
  // A chain of moves goes one at a time; folding gives the next one its constant. Longer chains than any exporter
  // writes stay.
  for (int i = 0; i < 8 && move_quantized_constants(graph, notes); ++i) fold_constants(graph, true, limits);
  canonical_pools(graph);
  make_tables(graph, notes);
  fuse_quantized(graph, notes);
  fold_constants(graph, false, limits);
  for (auto& note : run_passes(graph)) notes.push_back(std::move(note));
  fold_constants(graph, false, limits);
  fuse_quantized_gelus(graph);
}

// About what weights take once packed: a column or offset beside each nonzero.
int64_t packed_bytes(const Graph& graph) {
  int64_t bytes = 0;
  for (const Tensor& t : graph.initializers) {
    if (t.dtype == DType::kFloat)
      for (int64_t i = 0; i < t.numel(); ++i) bytes += t.f32()[i] != 0.0f ? 8 : 0;
    else bytes += static_cast<int64_t>(t.data.size());
  }
  return bytes;
}

// A plan's file is no more to be trusted than a model.
void check_saved_dims(const std::vector<ValueInfo>& inputs, const std::vector<Dims>& dims) {
  if (dims.size() != inputs.size())
    throw UsageError("plan: it is for " + std::to_string(dims.size()) + " inputs, the model has " +
                     std::to_string(inputs.size()));
  for (size_t i = 0; i < inputs.size(); ++i) {
    bool fits = !inputs[i].has_shape || dims[i].size() == inputs[i].shape.size();
    double count = 1;
    for (size_t k = 0; k < dims[i].size(); ++k) {
      fits = fits && dims[i][k] >= 0 &&
             (!inputs[i].has_shape || inputs[i].shape[k].size < 0 || inputs[i].shape[k].size == dims[i][k]);
      count *= static_cast<double>(dims[i][k]);
    }
    if (!fits || count > 0x1p32)
      throw UsageError("plan: shape " + dims_text(dims[i]) + " does not fit input '" + inputs[i].name + "'");
  }
}

// Only first axes are free.
bool known_but_batch(const std::vector<ValueInfo>& inputs) {
  for (const auto& in : inputs) {
    if (!in.has_shape) return false;
    for (size_t i = 1; i < in.shape.size(); ++i)
      if (in.shape[i].size < 0) return false;
  }
  return true;
}

}  // namespace

Graph read_model(std::span<const uint8_t> bytes, int level) {
#ifdef SECATEUR_READS_SCT
  if (is_sct(bytes)) return unpack(bytes, kUnpackLimit, level);
#endif
  if (level != 0) throw UsageError("level " + std::to_string(level) + ": an ONNX file has one level, 0");
  return read_onnx(bytes);
}

Session::Session(std::span<const uint8_t> bytes, int threads, bool allow_sparse, Tuner tuner, bool allow_plain_loops,
                 Limits limits, int level)
    : allow_sparse_(allow_sparse), allow_plain_loops_(allow_plain_loops), tuner_(std::move(tuner)), limits_(limits) {
  isa_ = selected_isa();
  n_threads_ = threads > 0 ? threads : usable_cpus();
  if (n_threads_ > 1) pool_ = std::make_unique<Threads>(n_threads_);
  graph_ = read_model(bytes, level);
  ReadOnce::done();
  n_nodes_ = graph_.nodes.size();
  inputs_ = graph_.inputs;
  outputs_ = graph_.outputs;
  prepare(graph_, notes_, limits_);
  tuner_.pool = pool_.get();
  if (tuner_.mode != Tune::kOff) tuner_.cold = packed_bytes(graph_) > cpu().l2_bytes;
  if (!tuner_.saved.empty()) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const SavedPlan& saved : tuner_.saved) {
      check_saved_dims(inputs_, saved.input_dims);
      plan_for(saved.input_dims);
    }
    planned_ = true;
    return;
  }

  plan_ahead();
}

// A model that cannot run says so now: planned at once where the shapes are known (or only the batch is free), tried
// with guessed sizes where they are not. A node that is refused for all of them is not refused for its sizes.
void Session::plan_ahead() {
  const auto sizes = guesses(inputs_);
  const bool fixed =
      sizes.empty() && std::all_of(inputs_.begin(), inputs_.end(), [](const auto& in) { return in.has_shape; });
  if (known_but_batch(inputs_)) {
    const std::lock_guard<std::mutex> lock(mutex_);
    try {
      plan_for(declared_dims(1));
      planned_ = true;
      return;
    } catch (const FormatError&) {
      if (fixed) throw;
    }
  }
  std::optional<Survey::Refusal> refused;
  for (const Guess& guess : sizes) {
    const Survey found = try_guess(guess);
    if (found.refused.empty() && found.fits) {
      planned_ = found.complete;
      return;
    }
    if (!found.refused.empty() && !refused) refused = found.refused.front();
  }
  if (refused) throw UnsupportedError(refused->why, refused->node);
}

// What is packed stays for the plans of the shapes to come.
Survey Session::try_guess(const Guess& guess) {
  std::vector<std::optional<Dims>> dims;
  for (const auto& in : inputs_) dims.emplace_back(guessed_dims(in, guess));
  Lowering L(graph_, cache_, isa_, n_threads_, allow_sparse_);
  L.allow_plain_loops(allow_plain_loops_);
  L.set_limits(limits_);
  return survey(graph_, L, dims, [](const std::string&) { return nullptr; }, false);
}

Refusals refusals(std::span<const uint8_t> bytes, const std::map<std::string, ValueInfo>& types) {
  Graph graph = read_model(bytes);
  std::vector<std::string> names, notes;
  for (const Node& n : graph.nodes) names.push_back(n.name);
  const auto type_of = [&](const std::string& value) -> const ValueInfo* {
    const auto it = types.find(value);
    return it == types.end() ? nullptr : &it->second;
  };
  std::vector<std::optional<Dims>> dims;
  for (const auto& in : graph.inputs) dims.push_back(known_dims(type_of(in.name) ? *type_of(in.name) : in));
  Refusals result;
  std::map<std::string, DType> own;
  for (const Tensor& t : graph.initializers) own[t.name] = t.dtype;
  for (const auto& in : graph.inputs) own[in.name] = in.dtype;
  for (const Node& n : graph.nodes) {
    // Before the passes: what they fuse is refused under one name only.
    const std::string type = strange_type(n, [&](const std::string& value) {
      const auto known = own.find(value);
      return known != own.end() ? known->second : type_of(value) ? type_of(value)->dtype : DType::kUndefined;
    });
    if (!type.empty()) result.nodes.emplace(n.name, "node '" + node_label(n) + "' (" + n.op + "): " + type);
  }
  prepare(graph, notes);
  PackCache cache;
  Lowering L(graph, cache, selected_isa(), 1);
  L.allow_plain_loops(false);  // who asks has another runtime
  const Survey found = survey(graph, L, dims, type_of, true);
  result.fits = found.fits;
  for (const auto& r : found.refused) {
    const bool known = r.layer >= 0 && static_cast<size_t>(r.layer) < names.size();
    result.nodes.emplace(known ? names[static_cast<size_t>(r.layer)] : r.node, r.why);
  }
  return result;
}

Session::~Session() = default;

std::vector<Dims> Session::declared_dims(int64_t free) const {
  std::vector<Dims> all;
  for (const auto& in : inputs_) {
    Dims d;
    for (const Dim& dim : in.shape) d.push_back(dim.size >= 0 ? dim.size : free);
    all.push_back(d);
  }
  return all;
}

std::shared_ptr<Plan> Session::plan_for(const std::vector<Dims>& input_dims) {
  for (size_t i = plans_.size(); i-- > 0;) {
    if (plans_[i]->input_dims != input_dims) continue;
    if (i + 1 != plans_.size())
      std::rotate(plans_.begin() + static_cast<long>(i), plans_.begin() + static_cast<long>(i) + 1, plans_.end());
    return plans_.back();
  }
  auto plan = make_plan(input_dims);
  if (plans_.size() == kMaxPlans) plans_.erase(plans_.begin());
  plans_.push_back(plan);
  return plan;
}

std::shared_ptr<Plan> Session::make_plan(const std::vector<Dims>& input_dims) {
  Lowering L(graph_, cache_, isa_, n_threads_, allow_sparse_);
  const auto saved = std::find_if(tuner_.saved.begin(), tuner_.saved.end(),
                                  [&](const SavedPlan& p) { return p.input_dims == input_dims; });
  L.allow_plain_loops(allow_plain_loops_);
  L.set_limits(limits_);
  L.set_tuner(&tuner_, saved == tuner_.saved.end() ? nullptr : &*saved);
  for (size_t i = 0; i < inputs_.size(); ++i) L.bind_input(inputs_[i], input_dims[i]);
  // The first plan sends away, layer by layer, what it packed; a session that is asked for a second one may be asked
  // for more, and keeps it.
  const bool first = plans_.empty() && away_.empty();
  away_.bring_back();
  std::unordered_map<std::string, std::pair<Tensor*, int>> large;  // and how many nodes read it
  for (auto& t : graph_.initializers)
    if (first && t.data.size() >= Away::kLeast) large.emplace(t.name, std::pair(&t, 0));
  for (const auto& node : graph_.nodes)
    for (const auto& in : node.inputs)
      if (const auto it = large.find(in); it != large.end()) ++it->second.second;
  for (const auto& out : outputs_) large.erase(out.name);
  for (const auto& node : graph_.nodes) {
    L.lower(node);
    for (const auto& in : node.inputs)
      if (const auto it = large.find(in);
          it != large.end() && it->second.second == 1 && L.packing().only_packed(it->second.first->data.data()))
        away_.put(*it->second.first);
  }
  L.check_saved();
  tuner_.forget_memory();
  auto plan = std::make_shared<Plan>();
  plan->input_dims = input_dims;
  plan->decisions = std::move(L.decisions);
  for (const auto& in : inputs_) plan->input_ids.push_back(L.find(in.name));
  for (const auto& out : outputs_) {
    const int id = L.find(out.name);
    if (id < 0) throw FormatError("graph output '" + out.name + "' is not computed by any node");
    L.keep_until_end(id);
    plan->output_ids.push_back(id);
  }
  plan->arena_bytes = L.plan_memory();
  plan->lent_inputs = lent_inputs(L.values(), plan->input_ids);
  plan->lent_outputs = lent_outputs(L.values(), plan->output_ids);
  plan->steps = std::move(L.steps);
  plan->values = L.values();
  plan->constants.assign(plan->values.size(), nullptr);
  for (size_t i = 0; i < plan->values.size(); ++i) plan->constants[i] = const_cast<uint8_t*>(plan->values[i].constant);
  return plan;
}

std::vector<SavedPlan> Session::decisions() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<SavedPlan> all;
  for (const auto& plan : plans_) all.push_back({plan->input_dims, plan->decisions});
  return all;
}

int64_t Session::n_timed() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return tuner_.n_timed;
}

std::vector<std::pair<std::string, Choice>> Session::take_timed() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(tuner_.fresh, {});
}

std::shared_ptr<const Plan> Session::plan(const std::vector<Dims>& input_dims) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return plan_for(input_dims);
}

Session::Lease::Lease(Session& session, const std::vector<Dims>& input_dims) : session_(session) {
  {
    const std::lock_guard<std::mutex> lock(session.mutex_);
    if (!session.plans_.empty() && session.plans_.back()->input_dims == input_dims) plan_ = session.plans_.back();
    else plan_ = session.plan_for(input_dims);
    if (!plan_->free_frames.empty()) {
      frame_ = std::move(plan_->free_frames.back());
      plan_->free_frames.pop_back();
      return;
    }
  }
  frame_ = std::make_unique<Plan::Frame>();
  try {
    frame_->arena = Buffer(plan_->arena_bytes);
  } catch (const std::bad_alloc&) {
    throw MemoryError("activations need " + std::to_string(plan_->arena_bytes) +
                      " bytes of memory, which the system does not give; run smaller batches");
  }
  frame_->ptr = plan_->constants;
  for (size_t i = 0; i < plan_->values.size(); ++i) {
    if (frame_->ptr[i]) continue;
    const Value& storage = plan_->values[static_cast<size_t>(plan_->values[i].storage)];
    frame_->ptr[i] = frame_->arena.data() + storage.offset;
  }
}

void Session::Lease::lend(const std::vector<int>& ids, void* bytes) {
  lent_.insert(lent_.end(), ids.begin(), ids.end());
  for (int id : ids) frame_->ptr[static_cast<size_t>(id)] = bytes;
}

Session::Lease::~Lease() {
  if (!frame_) return;
  for (int id : lent_) {
    const Value& v = plan_->values[static_cast<size_t>(id)];
    frame_->ptr[static_cast<size_t>(id)] = frame_->arena.data() + plan_->values[static_cast<size_t>(v.storage)].offset;
  }
  const std::lock_guard<std::mutex> lock(session_.mutex_);
  plan_->free_frames.push_back(std::move(frame_));
}

void Session::Lease::run() const {
  Faults faults;
  {
    const FlushDenormals guard;
    const Exec exec{frame_->ptr.data(), session_.pool_.get(), &faults};
    std::unique_lock<std::mutex> lock;
    if (exec.threads) lock = std::unique_lock<std::mutex>(exec.threads->turn());
    for (const Step& step : plan_->steps) step.run(step.state.get(), exec);
  }
  if (const Faults::Fault* fault = faults.first()) refuse(*fault);
}

void Session::Lease::refuse(const Faults::Fault& fault) const {
  const auto step = std::find_if(plan_->steps.begin(), plan_->steps.end(),
                                 [&](const Step& s) { return s.state.get() == fault.step; });
  const std::string node = step == plan_->steps.end() ? "" : "node '" + step->info.node + "' (" + step->info.op + "): ";
  throw UsageError("run(): " + node + fault_text(fault) + "; check the values of the inputs");
}

std::vector<double> Session::Lease::profile(int repeats) const {
  using Clock = std::chrono::steady_clock;
  std::vector<std::vector<double>> times(plan_->steps.size());
  const FlushDenormals guard;
  const Exec exec{frame_->ptr.data(), session_.pool_.get()};
  std::unique_lock<std::mutex> lock;
  if (exec.threads) lock = std::unique_lock<std::mutex>(exec.threads->turn());
  for (int r = 0; r < repeats; ++r) {
    for (size_t i = 0; i < plan_->steps.size(); ++i) {
      const auto begin = Clock::now();
      plan_->steps[i].run(plan_->steps[i].state.get(), exec);
      times[i].push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    }
  }
  std::vector<double> medians;
  for (auto& t : times) {
    std::nth_element(t.begin(), t.begin() + static_cast<long>(t.size() / 2), t.end());
    medians.push_back(t[t.size() / 2]);
  }
  return medians;
}

}  // namespace secateur
