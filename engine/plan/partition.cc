#include "plan/partition.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "graph/check.h"
#include "plan/support.h"

namespace secateur {
namespace {

constexpr size_t kMostParts = 64;

using Names = std::unordered_set<std::string>;

bool is_layer(const Node& n) {
  static const char* layers[] = {"Conv",        "ConvTranspose",      "Gemm",        "MatMul",
                                 "Attention",   "MultiHeadAttention", "QLinearConv", "QLinearMatMul",
                                 "ConvInteger", "MatMulInteger",      "QGemm"};
  return std::any_of(std::begin(layers), std::end(layers), [&](const char* op) { return n.op == op; });
}

// What a node needs before it can run.
std::vector<std::string> reads(const Node& n) {
  std::vector<std::string> all = n.inputs;
  all.insert(all.end(), n.captures.begin(), n.captures.end());
  std::erase(all, "");
  return all;
}

// Values that depend on no input: initializers and what nodes make of them, whoever runs those. They are in no part,
// but copied into each that reads them (an exporter's Constant may serve both sides).
struct Constants {
  std::unordered_map<std::string, size_t> maker;
  std::unordered_map<std::string, const Tensor*> stored;
  std::vector<bool> node;

  explicit Constants(const Graph& g) : node(g.nodes.size(), false) {
    for (const Tensor& t : g.initializers) stored[t.name] = &t;
    Names asked;
    for (const auto& out : g.outputs) asked.insert(out.name);
    for (size_t i = 0; i < g.nodes.size(); ++i) {
      const Node& n = g.nodes[i];
      bool all = is_function(n);
      for (const auto& in : reads(n)) all = all && has(in);
      for (const auto& out : n.outputs) all = all && !asked.count(out);  // a result belongs to a part
      if (!all) continue;
      node[i] = true;
      for (const auto& out : n.outputs) maker[out] = i;
    }
  }
  bool has(const std::string& value) const { return stored.count(value) || maker.count(value); }
};

// The nodes and the constants behind them; what `stop` says yes to is not looked behind.
struct Closure {
  std::set<size_t> nodes;
  Names stored, stopped;

  template <class Stop>
  Closure(const Graph& g, const Constants& constants, const Part& part, Stop&& stop)
      : nodes(part.nodes.begin(), part.nodes.end()) {
    std::vector<std::string> open;
    const auto look_behind = [&](size_t i) {
      for (auto& in : reads(g.nodes[i])) open.push_back(std::move(in));
    };
    for (size_t i : part.nodes) look_behind(i);
    open.insert(open.end(), part.outputs.begin(), part.outputs.end());
    while (!open.empty()) {
      const std::string value = std::move(open.back());
      open.pop_back();
      if (stop(value)) stopped.insert(value);
      else if (constants.stored.count(value)) stored.insert(value);
      else if (const auto m = constants.maker.find(value); m != constants.maker.end() && nodes.insert(m->second).second)
        look_behind(m->second);
    }
  }
};

// Nodes and values in parts: all that is ready of one side, then all of the other, so that every part is as large as
// the order of values allows.
std::vector<Part> take_turns(const Graph& g, const Constants& constants, const std::map<size_t, std::string>& refused) {
  std::vector<Part> parts;
  // Inputs that a node still waits for, and who waits for a value.
  std::vector<size_t> missing(g.nodes.size(), 0);
  std::unordered_map<std::string, std::vector<size_t>> waiting;
  Names given;
  for (const auto& in : g.inputs) given.insert(in.name);
  std::priority_queue<size_t, std::vector<size_t>, std::greater<>>
      ready[2];  // of ONNX Runtime, of the engine: by index
  const auto side = [&](size_t i) { return refused.count(i) ? 0 : 1; };
  size_t left = 0;
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    if (constants.node[i]) continue;
    ++left;
    for (const auto& in : reads(g.nodes[i])) {
      if (given.count(in) || constants.has(in)) continue;
      ++missing[i];
      waiting[in].push_back(i);
    }
    if (missing[i] == 0) ready[side(i)].push(i);
  }
  int engine = 1;
  for (int idle = 0; left > 0 && idle < 2; engine = 1 - engine) {
    Part part;
    part.engine = engine != 0;
    while (!ready[engine].empty()) {
      const size_t i = ready[engine].top();
      ready[engine].pop();
      --left;
      part.nodes.push_back(i);
      for (const auto& out : g.nodes[i].outputs) {
        const auto readers = waiting.find(out);
        if (out.empty() || readers == waiting.end()) continue;
        for (size_t k : readers->second)
          if (--missing[k] == 0) ready[side(k)].push(k);
        waiting.erase(readers);
      }
    }
    std::sort(part.nodes.begin(), part.nodes.end());
    idle = part.nodes.empty() ? idle + 1 : 0;
    if (!part.nodes.empty()) parts.push_back(std::move(part));
  }
  return parts;
}

// What every part reads from outside, and what others or the caller read of it.
void connect(const Graph& g, const Constants& constants, std::vector<Part>& parts) {
  Names wanted;
  for (const auto& out : g.outputs) wanted.insert(out.name);
  std::unordered_map<std::string, size_t> made_in;
  for (size_t p = 0; p < parts.size(); ++p)
    for (size_t i : parts[p].nodes)
      for (const auto& out : g.nodes[i].outputs)
        if (!out.empty()) made_in[out] = p;
  for (size_t p = 0; p < parts.size(); ++p) {
    Names seen;
    for (size_t i : parts[p].nodes)
      for (const auto& in : reads(g.nodes[i])) {
        if (constants.has(in)) continue;
        const auto made = made_in.find(in);
        if (made != made_in.end() && made->second == p) continue;
        if (made != made_in.end()) wanted.insert(in);
        if (seen.insert(in).second) parts[p].inputs.push_back(in);
      }
  }
  for (Part& part : parts)
    for (size_t i : part.nodes)
      for (const auto& out : g.nodes[i].outputs)
        if (wanted.count(out)) part.outputs.push_back(out);
}

Partition cut(const Graph& g, const std::map<size_t, std::string>& refused) {
  const Constants constants(g);
  Partition result{take_turns(g, constants, refused), refused};
  connect(g, constants, result.parts);
  for (Part& part : result.parts) {
    if (!part.engine) continue;
    const Closure behind(g, constants, part, [&](const std::string& value) {
      const auto m = constants.maker.find(value);
      return m != constants.maker.end() && refused.count(m->second);
    });
    part.computed.assign(behind.stopped.begin(), behind.stopped.end());
    std::sort(part.computed.begin(), part.computed.end());
  }
  return result;
}

}  // namespace

void name_nodes(Graph& graph) {
  Names used;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    std::string& name = graph.nodes[i].name;
    name = node_label(graph.nodes[i]);
    const std::string plain = name;
    for (size_t k = i; !used.insert(name).second; k += graph.nodes.size()) name = plain + " #" + std::to_string(k);
  }
}

Partition partition(const Graph& graph, std::map<size_t, std::string> refused) {
  auto unknown = unsupported_nodes(graph);
  unknown.merge(refused);
  refused = std::move(unknown);
  for (;;) {
    Partition result = cut(graph, refused);
    bool again = false;
    for (const Part& part : result.parts) {
      if (!part.engine ||
          std::any_of(part.nodes.begin(), part.nodes.end(), [&](size_t i) { return is_layer(graph.nodes[i]); }))
        continue;
      for (size_t i : part.nodes) refused.emplace(i, "no layer near it that would pay for a change of runtime");
      again = true;
    }
    if (again) continue;
    if (result.parts.size() <= kMostParts) return result;
    const std::string why = "the model would fall into " + std::to_string(result.parts.size()) + " parts";
    for (size_t i = 0; i < graph.nodes.size(); ++i) refused.emplace(i, why);
  }
}

Graph extract(const Graph& graph, const Part& part, const std::map<std::string, ValueInfo>& types,
              const std::map<std::string, Tensor>& given) {
  Graph out;
  out.name = graph.name;
  out.ir_version = graph.ir_version;
  out.opsets = graph.opsets;
  out.functions = graph.functions;
  const Constants constants(graph);
  const Closure all(graph, constants, part, [&](const std::string& value) { return given.count(value) != 0; });
  for (size_t i : all.nodes) out.nodes.push_back(graph.nodes[i]);
  for (const Tensor& t : graph.initializers)
    if (all.stored.count(t.name)) out.initializers.push_back(t);
  for (const auto& [name, tensor] : given)
    if (all.stopped.count(name)) out.initializers.push_back(tensor);
  for (const auto& name : part.inputs) {
    const auto declared =
        std::find_if(graph.inputs.begin(), graph.inputs.end(), [&](const ValueInfo& v) { return v.name == name; });
    const auto known = types.find(name);
    if (known != types.end()) out.inputs.push_back(known->second);
    else if (declared != graph.inputs.end()) out.inputs.push_back(*declared);
    else throw UnsupportedError("the type of '" + name + "' is not known");
  }
  for (const auto& name : part.outputs) {
    const auto declared =
        std::find_if(graph.outputs.begin(), graph.outputs.end(), [&](const ValueInfo& v) { return v.name == name; });
    ValueInfo info;
    info.name = name;
    info.dtype = DType::kUndefined;
    info.has_shape = false;
    out.outputs.push_back(declared != graph.outputs.end() ? *declared : info);
  }
  return out;
}

}  // namespace secateur
