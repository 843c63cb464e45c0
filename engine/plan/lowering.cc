#include "plan/lowering.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include <unistd.h>

#include "graph/check.h"
#include "plan/memory.h"

namespace secateur {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 40;
constexpr size_t kMostAxes = 8;  // kernels/eltwise/typed.h's kMaxRank

double machine_bytes() {
  return static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

std::string amount(double v) {
  char text[32];
  std::snprintf(text, sizeof text, v < 1e6 ? "%.0f" : "%.3g", v);
  return text;
}

}  // namespace

std::string fault_text(const Faults::Fault& f) {
  return "index " + std::to_string(f.index) + " (number " + std::to_string(f.at) +
         " of the indices) is outside the axis, which allows " + std::to_string(-f.axis) + " to " +
         std::to_string(f.axis - 1);
}

int64_t product(std::initializer_list<int64_t> factors) {
  constexpr int64_t kMost = int64_t{1} << 62;
  int64_t p = 1;
  for (int64_t f : factors) p = f != 0 && p > kMost / f ? kMost : p * f;
  return p;
}

std::string dims_text(const Dims& dims) {
  std::string s = "[";
  for (size_t i = 0; i < dims.size(); ++i) s += (i ? ", " : "") + std::to_string(dims[i]);
  return s + "]";
}

Lowering::Lowering(const Graph& graph, PackCache& cache, Isa isa, int threads, bool allow_sparse)
    : packing_(cache), isa_(isa), threads_(threads), allow_sparse_(allow_sparse) {
  const auto it = graph.opsets.find("");
  opset_ = it == graph.opsets.end() ? 0 : it->second;
  values_.reserve(graph.initializers.size() + graph.nodes.size() * 2);
  set_limits({});
  for (const auto& t : graph.initializers) {
    if (t.opaque()) continue;
    folding_.allow_for(t.data.size());
    const int id = new_value(t.name, t.dtype, t.dims);
    values_[static_cast<size_t>(id)].constant = t.data.data();
    ptr_[static_cast<size_t>(id)] = const_cast<uint8_t*>(t.data.data());
    // An empty vector has a null pointer; a constant with no elements is still a constant.
    static const uint8_t nothing = 0;
    if (t.data.empty()) values_[static_cast<size_t>(id)].constant = &nothing;
  }
}

void Lowering::set_limits(const Limits& limits) {
  limits_ = limits;
  if (limits_.nbytes <= 0) limits_.nbytes = 2 * machine_bytes();
  if (limits_.work <= 0) limits_.work = Limits::kMostWork;
}

int Lowering::new_value(std::string name, DType dtype, Dims dims) {
  Value v;
  v.name = std::move(name);
  v.dtype = dtype;
  v.dims = std::move(dims);
  v.storage = static_cast<int>(values_.size());
  values_.push_back(std::move(v));
  ptr_.push_back(nullptr);
  const int id = static_cast<int>(values_.size()) - 1;
  if (!values_.back().name.empty()) by_name_[values_.back().name] = id;
  return id;
}

int Lowering::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? -1 : it->second;
}

// Axes beside an empty one count as well: strides are products of any of them.
void Lowering::check_dims(const Node& n, const Dims& dims) const {
  int64_t count = 1;
  for (int64_t d : dims) {
    if (d < 0) invalid(n, "computed shape " + dims_text(dims) + " has a negative dimension");
    if (d > 1 && count > kMaxElements / d) invalid(n, "shape " + dims_text(dims) + " is too large");
    count *= std::max<int64_t>(d, 1);
  }
  if (dims.size() > kMostAxes)
    unsupported(n, "rank " + std::to_string(dims.size()) + ", supported: up to " + std::to_string(kMostAxes));
}

void Lowering::bind_input(const ValueInfo& info, const Dims& dims) {
  Node input;
  input.op = "input";
  input.name = info.name;
  check_dims(input, dims);
  const int id = new_value(info.name, info.dtype, dims);
  values_[static_cast<size_t>(id)].is_input = true;
}

int Lowering::in_or(const Node& n, size_t i) const {
  if (!has(n, i)) return -1;
  const int id = find(n.inputs[i]);
  if (id < 0) invalid(n, "input '" + n.inputs[i] + "' is not defined");
  if (value(id).dims.size() > kMostAxes)  // an initializer's
    unsupported(n, "input '" + n.inputs[i] + "' has rank " + std::to_string(value(id).dims.size()) +
                       ", supported: up to " + std::to_string(kMostAxes));
  return id;
}

int Lowering::in(const Node& n, size_t i) const {
  if (!has(n, i)) invalid(n, "input " + std::to_string(i) + " is missing");
  return in_or(n, i);
}

int Lowering::in_f32(const Node& n, size_t i) const {
  const int id = in(n, i);
  if (value(id).dtype != DType::kFloat)
    unsupported(n, "input " + std::to_string(i) + " has dtype " + dtype_name(value(id).dtype) + ", supported: float32");
  return id;
}

int Lowering::out(const Node& n, size_t i, DType dtype, Dims dims, ValueLayout layout) {
  const std::string name = i < n.outputs.size() ? n.outputs[i] : std::string();
  check_dims(n, dims);
  const int id = new_value(name, dtype, std::move(dims));
  values_[static_cast<size_t>(id)].layout = layout;
  if (folding_.now) {
    Value& v = values_[static_cast<size_t>(id)];
    auto buffer = folding_.result(n, v.nbytes());
    v.constant = buffer->data();
    ptr_[static_cast<size_t>(id)] = buffer->data();
    v.owner = std::move(buffer);
  } else {
    check_nbytes(static_cast<double>(value(id).nbytes()));
  }
  return id;
}

void Lowering::check_nbytes(double nbytes) const {
  if (nbytes > limits_.nbytes)
    throw UsageError("activations of " + amount(nbytes) + " bytes are planned for these input shapes, the limit is " +
                     amount(limits_.nbytes) +
                     "; run smaller inputs, or raise it with InferenceSession(..., max_nbytes=...)");
}

int Lowering::temp(DType dtype, Dims dims, ValueLayout layout) {
  const Node anonymous;
  return out(anonymous, 0, dtype, std::move(dims), layout);
}

int Lowering::scratch(size_t nbytes) {
  const int id = temp(DType::kUInt8, {static_cast<int64_t>(nbytes)});
  values_[static_cast<size_t>(id)].is_scratch = true;
  return id;
}

void Lowering::alias(const Node& n, size_t i, int source, Dims dims) {
  const Value src = value(source);
  const std::string name = i < n.outputs.size() ? n.outputs[i] : std::string();
  check_dims(n, dims);
  const int id = new_value(name, src.dtype, std::move(dims));
  if (value(id).numel() != src.numel())
    invalid(n, "cannot view " + dims_text(src.dims) + " as " + dims_text(value(id).dims));
  Value& v = values_[static_cast<size_t>(id)];
  v.constant = src.constant;
  v.owner = src.owner;
  v.storage = src.storage;
  v.layout = src.layout;
  ptr_[static_cast<size_t>(id)] = ptr_[static_cast<size_t>(source)];
}

int Lowering::constant(const Node& n, size_t i, DType dtype, Dims dims, const void* bytes) {
  const bool before = folding_.now;
  folding_.now = true;
  const int id = out(n, i, dtype, std::move(dims));
  folding_.now = before;
  if (value(id).nbytes()) std::memcpy(ptr_[static_cast<size_t>(id)], bytes, value(id).nbytes());
  return id;
}

std::optional<std::vector<int64_t>> Lowering::ints(int id) const {
  if (id < 0) return std::nullopt;
  const Value& v = value(id);
  if (!v.constant) return std::nullopt;
  std::vector<int64_t> r(static_cast<size_t>(v.numel()));
  for (size_t i = 0; i < r.size(); ++i) {
    if (v.dtype == DType::kInt64) {
      std::memcpy(&r[i], v.constant + i * 8, 8);
    } else if (v.dtype == DType::kInt32) {
      int32_t x;
      std::memcpy(&x, v.constant + i * 4, 4);
      r[i] = x;
    } else {
      return std::nullopt;
    }
  }
  return r;
}

std::optional<std::vector<double>> Lowering::numbers(int id) const {
  if (auto i = ints(id)) return std::vector<double>(i->begin(), i->end());
  if (id < 0) return std::nullopt;
  const Value& v = value(id);
  if (!v.constant) return std::nullopt;
  std::vector<double> r(static_cast<size_t>(v.numel()));
  for (size_t i = 0; i < r.size(); ++i) {
    if (v.dtype == DType::kFloat) {
      float x;
      std::memcpy(&x, v.constant + i * 4, 4);
      r[i] = x;
    } else if (v.dtype == DType::kDouble) {
      std::memcpy(&r[i], v.constant + i * 8, 8);
    } else {
      return std::nullopt;
    }
  }
  return r;
}

std::vector<int64_t> Lowering::need_ints(const Node& n, size_t i) const {
  auto r = ints(in(n, i));
  if (!r)
    unsupported(
        n, "input " + std::to_string(i) + " ('" + n.inputs[i] + "') must be constant integers once shapes are known");
  return *r;
}

void Lowering::unsupported(const Node& anyone, const std::string& what) const {
  const Node& n = named(anyone);
  throw UnsupportedError("node '" + node_label(n) + "' (" + n.op + "): " + what, n.name);
}

void Lowering::invalid(const Node& anyone, const std::string& what) const {
  const Node& n = named(anyone);
  throw FormatError("node '" + node_label(n) + "' (" + n.op + "): " + what);
}

const Choice* Lowering::saved_choice(const Node& n) const {
  if (folding_.now || !saved_) return nullptr;
  const size_t at = decisions.size();
  if (at < saved_->layers.size() && saved_->layers[at].first == node_label(n)) return &saved_->layers[at].second;
  throw UsageError("plan: layer " + std::to_string(at) + " of the model is '" + node_label(n) + "', of the plan " +
                   (at < saved_->layers.size() ? "'" + saved_->layers[at].first + "'" : "none") +
                   "; make the plan again with save_plan()");
}

void Lowering::decided(const Node& n, Choice choice) {
  if (!folding_.now) decisions.emplace_back(node_label(n), std::move(choice));
}

void Lowering::check_saved() const {
  if (saved_ && decisions.size() != saved_->layers.size())
    throw UsageError("plan: it decides " + std::to_string(saved_->layers.size()) + " layers, the model has " +
                     std::to_string(decisions.size()) + "; make the plan again with save_plan()");
}

void Lowering::plain_loops(const Node& n, double macs, const std::string& why) const {
  constexpr double kLayer = 0x1p16;  // about 60 microseconds: what a change of runtime costs, and more
  if (!allow_plain_loops_ && !folding_.now && isa_ != Isa::kRef && macs > kLayer)
    unsupported(n, why + ": there are only plain loops for it");
}

void Lowering::add_step(const Node& n, void (*run)(const void*, const Exec&) noexcept,
                        std::shared_ptr<const void> state, const std::vector<int>& reads,
                        const std::vector<int>& writes, StepInfo info) {
  const auto is_result = [&](int id) { return id >= 0 && !value(id).is_scratch && value(id).numel() > 0; };
  if (std::none_of(writes.begin(), writes.end(), is_result)) return;
  count_work(n, info, reads, writes);
  if (folding_.now) {
    Faults faults;
    const Exec exec{ptr_.data(), nullptr, &faults};
    run(state.get(), exec);
    if (faults.first()) invalid(n, fault_text(*faults.first()));
    return;
  }
  const int at = static_cast<int>(steps.size());
  const auto touch = [&](int id, bool write) {
    if (id < 0) return;
    Value& s = values_[static_cast<size_t>(value(id).storage)];
    if (s.constant) return;
    if (write && s.first < 0 && !s.is_input) s.first = at;
    if (!info.anywhere || (write && s.is_input)) s.anywhere = false;
    s.last = std::max(s.last, at);
  };
  for (int id : reads) {
    touch(id, false);
    if (id >= 0 && value(id).constant) packing_.read_by_step(value(id).constant);
  }
  for (int id : writes) touch(id, true);
  if (info.node.empty()) info.node = node_label(n);
  if (info.op.empty()) info.op = n.op;
  if (!n.post.why.empty() && info.n_weights) info.why = n.post.why + (info.why.empty() ? "" : "; ") + info.why;
  info.layer = n.post.layer;
  if (info.out.empty() && !writes.empty()) info.out = dims(writes[0]);
  if (info.in.empty() && !reads.empty()) info.in = dims(reads[0]);
  steps.push_back(Step{run, std::move(state), std::move(info)});
}

void Lowering::count_work(const Node& n, const StepInfo& info, const std::vector<int>& reads,
                          const std::vector<int>& writes) {
  double work = std::max(info.work, static_cast<double>(info.macs));
  for (const auto* ids : {&reads, &writes})
    for (int id : *ids)
      if (id >= 0 && !value(id).is_scratch) work = std::max(work, static_cast<double>(value(id).numel()));
  double& total = folding_.now ? folding_.work : work_;
  total += work;
  check_work(n, total);
}

void Lowering::check_size(const Node& n, const Dims& dims, double work) const {
  double count = 1;
  for (int64_t d : dims) count *= static_cast<double>(d);
  check_work(n, std::max(count, work));
  if (!folding_.now) check_nbytes(count * 4);
}

void Lowering::check_work(const Node& n, double total) const {
  const double limit = limits_.work * (folding_.now ? Limits::kFoldedPart : 1.0);
  if (total > limit)
    throw UsageError("node '" + node_label(n) + "' (" + n.op + "): " + amount(total) + " operations are planned " +
                     (folding_.now ? "for constants, while loading" : "up to here for these input shapes") +
                     ", the limit is " + amount(limit) + "; " + (folding_.now ? "" : "run smaller inputs, or ") +
                     "raise it with InferenceSession(..., max_work=" + amount(10 * total * limits_.work / limit) + ")");
}

void Lowering::lower(const Node& node) {
  const LowerFn fn = find_operator(node.domain, node.op);
  if (!fn && !node.post.refused.empty()) throw UnsupportedError(node.post.refused, node.name);
  if (!fn)
    throw UnsupportedError("node '" + node_label(node) + "': operator " +
                               (node.domain.empty() ? node.op : node.domain + "." + node.op) +
                               " is not supported; supported: " + supported_operators(),
                           node.name);
  bool all = true;
  for (const auto& name : node.inputs) {
    if (name.empty()) continue;
    const int id = find(name);
    if (id < 0) invalid(node, "input '" + name + "' is not defined");
    all = all && value(id).constant != nullptr;
  }
  folding_.now = all;
  now_ = &node;
  fn(*this, node);
  now_ = nullptr;
  folding_.now = false;
}

void Lowering::forget(const Node& node) {
  folding_.now = false;
  for (const auto& out : node.outputs) by_name_.erase(out);
}

bool Lowering::fold(const Node& node) {
  for (const auto& name : node.inputs) {
    if (name.empty()) continue;
    const int id = find(name);
    if (id < 0 || !value(id).constant) return false;
  }
  lower(node);
  return true;
}

void Lowering::keep_until_end(int id) {
  Value& s = values_[static_cast<size_t>(value(id).storage)];
  s.last = static_cast<int>(steps.size());
}

size_t Lowering::plan_memory() {
  std::vector<Value*> placed;
  std::vector<Lifetime> lives;
  for (size_t i = 0; i < values_.size(); ++i) {
    Value& v = values_[i];
    if (v.storage != static_cast<int>(i) || v.constant || (v.last < 0 && !v.is_input)) continue;
    placed.push_back(&v);
    lives.push_back({v.nbytes(), v.first, v.last});
  }
  const Placement placement = place(lives);
  for (size_t k = 0; k < placed.size(); ++k) placed[k]->offset = placement.offsets[k];
  check_nbytes(static_cast<double>(placement.total));
  return placement.total;
}

}  // namespace secateur
