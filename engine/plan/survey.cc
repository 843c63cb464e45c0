#include "plan/survey.h"

#include <algorithm>

namespace secateur {
namespace {

// No kernel computes in these, whatever the shapes. float16 and bfloat16 may be moved around; a stretch that only does so
// is not worth a change of runtime.
bool no_kernel_reads(DType t) { return dtype_size(t) == 0 || t == DType::kFloat16 || t == DType::kBFloat16; }

class Surveyor {
 public:
  Surveyor(Lowering& lowering, const TypeOf& type_of) : lowering_(lowering), type_of_(type_of) {}

  void visit(const Node& n) {
    const std::string type = strange_type(n);
    if (!type.empty()) {
      refuse(n, "node '" + label(n) + "' (" + n.op + "): " + type + " is not supported");
    } else if (std::any_of(n.inputs.begin(), n.inputs.end(), [&](const auto& in) { return !in.empty() && lowering_.find(in) < 0; })) {
      found_.complete = false;
      skip(n);
    } else {
      lower(n);
    }
  }

  Survey found_;

 private:
  static std::string label(const Node& n) { return n.name.empty() && !n.outputs.empty() ? n.outputs[0] : n.name; }

  std::string strange_type(const Node& n) const {
    for (const auto* list : {&n.inputs, &n.outputs})
      for (const auto& name : *list) {
        if (name.empty()) continue;
        const int id = list == &n.inputs ? lowering_.find(name) : -1;
        const ValueInfo* info = id < 0 ? type_of_(name) : nullptr;
        const DType t = id >= 0 ? lowering_.value(id).dtype : info && info->type.empty() ? info->dtype : DType::kFloat;
        if (t != DType::kUndefined && no_kernel_reads(t)) return "value '" + name + "' of element type " + dtype_name(t);
      }
    return {};
  }

  void lower(const Node& n) {
    try {
      lowering_.lower(n);
    } catch (const UnsupportedError& e) {
      refuse(n, e.what());
    } catch (const FormatError&) {
      contradict(n);
    } catch (const UsageError&) {
      contradict(n);
    }
  }

  void refuse(const Node& n, const std::string& why) {
    found_.refused.push_back({attr_i(n, "_layer", -1), n.name, why});
    skip(n);
  }

  void contradict(const Node& n) {
    found_.fits = found_.complete = false;
    skip(n);
  }

  // What the node would have made is bound as if it came from outside.
  void skip(const Node& n) {
    lowering_.forget(n);
    for (const auto& out : n.outputs) {
      if (out.empty()) continue;
      const ValueInfo* info = type_of_(out);
      if (!info) continue;
      if (const auto dims = known_dims(*info)) lowering_.bind_input(*info, *dims);
    }
  }

  Lowering& lowering_;
  const TypeOf& type_of_;
};

}  // namespace

Survey survey(const Graph& graph, Lowering& lowering, const std::vector<std::optional<Dims>>& inputs, const TypeOf& type_of) {
  for (size_t i = 0; i < graph.inputs.size(); ++i)
    if (inputs[i]) lowering.bind_input(graph.inputs[i], *inputs[i]);
  Surveyor surveyor(lowering, type_of);
  for (const Node& n : graph.nodes) surveyor.visit(n);
  return std::move(surveyor.found_);
}

std::optional<Dims> known_dims(const ValueInfo& info) {
  if (!info.has_shape || info.dtype == DType::kUndefined) return std::nullopt;
  Dims dims;
  for (const Dim& d : info.shape) {
    if (d.size < 0) return std::nullopt;
    dims.push_back(d.size);
  }
  return dims;
}

std::vector<Guess> guesses(const std::vector<ValueInfo>& inputs) {
  size_t firsts = 0, others = 0;
  for (const ValueInfo& in : inputs) {
    if (!in.has_shape) return {};
    for (size_t i = 0; i < in.shape.size(); ++i)
      if (in.shape[i].size < 0) (i == 0 ? firsts : others) += 1;
  }
  if (firsts + others == 0) return {};
  // 64 and 320: images and tokens, multiples of every net's strides. One long axis: sound.
  if (others == 0) return {{1, 1}, {64, 64}};
  if (others <= inputs.size()) return {{1, 64}, {1, 320}, {1, 16000}, {1, 1}, {64, 64}};
  return {{1, 64}, {1, 320}, {1, 1}, {64, 64}};
}

Dims guessed_dims(const ValueInfo& input, const Guess& guess) {
  Dims dims;
  for (size_t i = 0; i < input.shape.size(); ++i)
    dims.push_back(input.shape[i].size >= 0 ? input.shape[i].size : i == 0 ? guess.first : guess.other);
  return dims;
}

}  // namespace secateur
