#include "plan/survey.h"

#include <algorithm>

#include "graph/check.h"

namespace secateur {
namespace {

// No kernel computes in these, whatever the shapes. float16 and bfloat16 may be moved around; a stretch that only does
// so is not worth a change of runtime.
bool no_kernel_reads(DType t) { return dtype_size(t) == 0 || t == DType::kFloat16 || t == DType::kBFloat16; }

class Surveyor {
 public:
  Surveyor(Lowering& lowering, const TypeOf& type_of, bool by_type)
      : lowering_(lowering), type_of_(type_of), by_type_(by_type) {}

  void visit(const Node& n) {
    const std::string type = by_type_ ? strange_type(n, [&](const std::string& value) { return dtype_of(value); }) : "";
    if (!type.empty()) {
      refuse(n, "node '" + node_label(n) + "' (" + n.op + "): " + type);
    } else if (std::any_of(n.inputs.begin(), n.inputs.end(),
                           [&](const auto& in) { return !in.empty() && lowering_.find(in) < 0; })) {
      found_.complete = false;
      skip(n);
    } else {
      lower(n);
    }
  }

  Survey found_;

 private:
  DType dtype_of(const std::string& value) const {
    if (const int id = lowering_.find(value); id >= 0) return lowering_.value(id).dtype;
    const ValueInfo* info = type_of_(value);
    return info ? info->dtype : DType::kUndefined;
  }

  void lower(const Node& n) {
    try {
      lowering_.lower(n);
    } catch (const TooLargeError&) {  // for these shapes; they may be a guess
      contradict(n);
    } catch (const UnsupportedError& e) {
      refuse(n, e.what());
    } catch (const FormatError&) {
      contradict(n);
    } catch (const UsageError&) {
      contradict(n);
    }
  }

  void refuse(const Node& n, const std::string& why) {
    found_.refused.push_back({n.post.layer, n.name, why});
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
  bool by_type_;
};

}  // namespace

Survey survey(const Graph& graph, Lowering& lowering, const std::vector<std::optional<Dims>>& inputs,
              const TypeOf& type_of, bool by_type) {
  for (size_t i = 0; i < graph.inputs.size(); ++i)
    if (inputs[i]) lowering.bind_input(graph.inputs[i], *inputs[i]);
  Surveyor surveyor(lowering, type_of, by_type);
  for (const Node& n : graph.nodes) surveyor.visit(n);
  return std::move(surveyor.found_);
}

std::string strange_type(const Node& n, const std::function<DType(const std::string& value)>& dtype_of) {
  for (const auto* list : {&n.inputs, &n.outputs})
    for (const auto& value : *list) {
      if (value.empty()) continue;
      const DType t = dtype_of(value);
      if (t != DType::kUndefined && no_kernel_reads(t))
        return "value '" + value + "' of element type " + dtype_name(t) + " is not supported";
    }
  return {};
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
