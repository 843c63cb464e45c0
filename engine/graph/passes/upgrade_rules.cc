// What each old form becomes; why these: docs/design/old-opsets.md.
#include <algorithm>
#include <cstring>

#include "graph/passes/upgrade.h"

namespace secateur::upgrading {
namespace {

// ---- broadcasting of opsets 1 to 6 ----

// Input `slot` gets axes of size 1 at its end, so that its first axis meets axis `axis` of input 0.
void align(Upgrade& u, Node& n, size_t slot, int64_t axis) {
  const std::string x = need(n, 0), b = need(n, slot);
  const int64_t rx = u.rank(x), rb = u.rank(b);
  if (axis < -64 || axis > 64) invalid(n, "axis " + std::to_string(axis) + " does not exist");
  if (const Tensor* t = u.constant(b); t && t->numel() == 1) return;  // fits everywhere
  if (rb >= 0 && (rx >= 0 || axis < 0)) {
    const int64_t more = (axis < 0 ? -axis : rx - axis) - rb;
    if (more < 0 || more > 64) invalid(n, "axis " + std::to_string(axis) + " does not exist");
    if (more == 0) return;
    Ints axes;
    for (int64_t i = 0; i < more; ++i) axes.push_back(rb + i);
    n.inputs[slot] = u.emit(n, "Unsqueeze", {b}, {{"axes", {axes}}});
    return;
  }
  // Ranks come with shapes: ones(rank(x) - axis - rank(b)) behind the shape of b.
  const std::string shape = u.emit(n, "Shape", {b});
  std::string end = u.ints({axis < 0 ? -axis : axis});
  if (axis >= 0) end = u.emit(n, "Sub", {u.emit(n, "Shape", {u.emit(n, "Shape", {x})}), end});
  const std::string more = u.emit(n, "Sub", {end, u.emit(n, "Shape", {shape})});
  auto one = std::make_shared<Tensor>();
  one->dtype = DType::kInt64;
  one->dims = {1};
  one->data = {1, 0, 0, 0, 0, 0, 0, 0};
  const std::string ones = u.emit(n, "ConstantOfShape", {more}, {{"value", {std::move(one)}}});
  n.inputs[slot] = u.emit(n, "Reshape", {b, u.emit(n, "Concat", {shape, ones}, {{"axis", {int64_t{0}}}})});
}

void broadcast(Upgrade& u, Node& n) {
  const bool asked = take_i(n, "broadcast", 0) != 0, placed = has_attr(n, "axis");
  const int64_t axis = take_i(n, "axis", 0);
  if (asked && placed) align(u, n, 1, axis);  // without an axis the last ones meet, as today
}

// One slope per channel stood on axis 1.
void prelu(Upgrade& u, Node& n) {
  const int x = u.rank(need(n, 0)), slope = u.rank(need(n, 1));
  if ((x >= 0 && x < 2) || (slope >= 0 && slope != 1)) return;
  align(u, n, 1, 1);
}

// ---- attributes that are inputs now ----

void clip(Upgrade& u, Node& n) {
  const float most = std::numeric_limits<float>::max();
  const bool low = has_attr(n, "min"), high = has_attr(n, "max");
  const float lo = take_f(n, "min", -most), hi = take_f(n, "max", most);
  n.inputs.resize(1);
  if (low || high) n.inputs.push_back(low ? u.number(lo) : "");
  if (high) n.inputs.push_back(u.number(hi));
}

void pad(Upgrade& u, Node& n) {
  const char* name = has_attr(n, "paddings") ? "paddings" : "pads";  // opset 1
  need_attr(n, name);
  n.inputs = {need(n, 0), u.ints(take_is(n, name))};
  if (const float value = take_f(n, "value", 0.0f); value != 0.0f) n.inputs.push_back(u.number(value));
}

void reshape(Upgrade& u, Node& n) {
  need_attr(n, "shape");
  n.inputs = {need(n, 0), u.ints(take_is(n, "shape"))};
}

void slice(Upgrade& u, Node& n) {
  for (const char* name : {"starts", "ends"}) need_attr(n, name);
  const std::string x = need(n, 0), starts = u.ints(take_is(n, "starts")), ends = u.ints(take_is(n, "ends"));
  n.inputs = {x, starts, ends};
  if (has_attr(n, "axes")) n.inputs.push_back(u.ints(take_is(n, "axes")));
}

void top_k(Upgrade& u, Node& n) {
  need_attr(n, "k");
  n.inputs = {need(n, 0), u.ints({take_i(n, "k", 0)})};
}

// ---- resizing ----

void resize(Upgrade&, Node& n) {
  const std::string mode = attr_s(n, "mode", "nearest");
  const std::string x = need(n, 0), scales = need(n, 1);
  become(n, "Resize", {x, "", scales});
  n.attrs["mode"].value = mode == "bilinear" ? std::string("linear") : mode;
  n.attrs["coordinate_transformation_mode"].value = std::string("asymmetric");
  n.attrs["nearest_mode"].value = std::string("floor");
  n.post.ceil_to_shrink = true;  // what ONNX's own tests of opset 10 show; the text is silent
}

void upsample(Upgrade& u, Node& n) {
  if (!has(n, 1)) {
    std::vector<float> scales = attr_fs(n, "scales");
    if (scales.empty()) {  // opset 1
      for (const char* name : {"height_scale", "width_scale"}) need_attr(n, name);
      scales = {1.0f, 1.0f, attr_f(n, "height_scale", 1.0f), attr_f(n, "width_scale", 1.0f)};
    }
    n.inputs.resize(1);
    n.inputs.push_back(u.add(DType::kFloat, {static_cast<int64_t>(scales.size())}, scales.data()));
  }
  resize(u, n);
}

void no_upsample(Upgrade&, Node& n) { unsupported(n, "opset 10 and later have Resize instead"); }

// output_shape named batch and channels as well, in ONNX's tests up to opset 8.
void spatial_shape(Upgrade& u, Node& n) {
  Ints shape = attr_is(n, "output_shape");
  const int rank = u.rank(need(n, 1));
  if (rank < 3 || static_cast<int>(shape.size()) != rank) return;
  shape.erase(shape.begin(), shape.begin() + 2);
  n.attrs["output_shape"].value = std::move(shape);
}

// ---- training and inference ----

void unread_outputs(Upgrade& u, Node& n) {
  while (n.outputs.size() > 1 && !u.is_read(n.outputs.back())) n.outputs.pop_back();
}

void test_mode(Upgrade& u, Node& n) {
  if (take_i(n, "is_test", 0) == 0) unsupported(n, "is_test 0, which is training; export the model in evaluation mode");
  unread_outputs(u, n);
}

// spatial 0: every activation has a mean and variance of its own.
void per_activation(Upgrade& u, Node& n) {
  const bool spatial = take_i(n, "spatial", 1) != 0;
  if (spatial || u.rank(need(n, 1)) == 1) return;  // of one activation per channel
  if (n.outputs.size() != 1) unsupported(n, "more than one output; export the model in evaluation mode");
  const std::string eps = u.number(attr_f(n, "epsilon", 1e-5f));
  const std::string root = u.emit(n, "Sqrt", {u.emit(n, "Add", {need(n, 4), eps})});
  const std::string centred = u.emit(n, "Sub", {need(n, 0), need(n, 3)}), scale = u.emit(n, "Div", {need(n, 1), root});
  const std::string bias = need(n, 2);
  become(n, "Add", {u.emit(n, "Mul", {centred, scale}), bias});
}

// ---- defaults and words ----

void cast(Upgrade&, Node& n) {
  static const std::pair<const char*, DType> words[] = {
      {"FLOAT", DType::kFloat},  {"UINT8", DType::kUInt8},     {"INT8", DType::kInt8},     {"UINT16", DType::kUInt16},
      {"INT16", DType::kInt16},  {"INT32", DType::kInt32},     {"INT64", DType::kInt64},   {"STRING", DType::kString},
      {"BOOL", DType::kBool},    {"FLOAT16", DType::kFloat16}, {"DOUBLE", DType::kDouble}, {"UINT32", DType::kUInt32},
      {"UINT64", DType::kUInt64}};
  const std::string to = attr_s(n, "to", "");
  for (const auto& [word, dtype] : words)
    if (to == word) {
      n.attrs["to"].value = static_cast<int64_t>(dtype);
      return;
    }
  unsupported(n, "cast to '" + to + "'");
}

void concat(Upgrade&, Node& n) { n.attrs.try_emplace("axis", Attribute{int64_t{1}}); }

void selu(Upgrade&, Node& n) {
  n.attrs.try_emplace("alpha", Attribute{1.6732f});
  n.attrs.try_emplace("gamma", Attribute{1.0507f});
}

void split(Upgrade&, Node& n) {
  if (!has_attr(n, "axis")) unsupported(n, "axis is missing, for which opset 1 has no default");
}

// Copies along one axis.
void tile(Upgrade& u, Node& n) {
  const auto scalar = [&](size_t i) {
    const Tensor* t = u.constant(need(n, i));
    if (!t || t->numel() != 1 || (t->dtype != DType::kFloat && t->dtype != DType::kInt64))
      unsupported(n, "tiles and axis must be constant scalars");
    return t->dtype == DType::kFloat ? static_cast<double>(t->f32()[0]) : static_cast<double>(t->i64()[0]);
  };
  const double tiles = scalar(1), axis = scalar(2);
  if (!(tiles >= 1 && tiles <= kMostTiles) || !(axis >= 0 && axis <= 64)) unsupported(n, "tiles or axis out of range");
  become(n, "Concat", Strings(static_cast<size_t>(tiles), need(n, 0)));
  n.attrs["axis"].value = static_cast<int64_t>(axis);
}

// ---- names for small sums ----

// Sum and Mean, of all opsets: additions, which layers take in as residuals.
void sum(Upgrade& u, Node& n) {
  const bool mean = n.op == "Mean";
  const auto count = static_cast<float>(n.inputs.size());
  std::string total = need(n, 0);
  if (n.inputs.size() == 1) return become(n, "Identity", {total});
  const size_t last = n.inputs.size() - 1;
  for (size_t i = 1; i < last + (mean ? 1 : 0); ++i) total = u.emit(n, "Add", {total, need(n, i)});
  const std::string second = mean ? u.number(count) : need(n, last);
  become(n, mean ? "Div" : "Add", {total, second});
}

// x * scale + bias of its channel: an experiment of opset 1 that stayed in files (CoreML, image networks).
void image_scaler(Upgrade& u, Node& n) {
  const std::vector<float> bias = attr_fs(n, "bias");
  const float scale = attr_f(n, "scale", 1.0f);
  const std::string x = need(n, 0);
  if (bias.empty()) return become(n, "Mul", {x, u.number(scale)});
  const auto vector = [&](const std::vector<float>& v) {
    return u.add(DType::kFloat, {static_cast<int64_t>(v.size())}, v.data());
  };
  const std::string slope = vector(std::vector<float>(bias.size(), scale)), shift = vector(bias);
  const std::string zero = vector(std::vector<float>(bias.size(), 0.0f)),
                    one = vector(std::vector<float>(bias.size(), 1.0f));
  become(n, "BatchNormalization", {x, slope, shift, zero, one});  // which is one step
  n.attrs["epsilon"].value = 0.0f;
}

constexpr Rule kRules[] = {
    {"Add", 1, 7, broadcast},
    {"And", 1, 7, broadcast},
    {"Div", 1, 7, broadcast},
    {"Equal", 1, 7, broadcast},
    {"Greater", 1, 7, broadcast},
    {"Less", 1, 7, broadcast},
    {"Mul", 1, 7, broadcast},
    {"Or", 1, 7, broadcast},
    {"Pow", 1, 7, broadcast},
    {"Sub", 1, 7, broadcast},
    {"Xor", 1, 7, broadcast},
    {"BatchNormalization", 1, 7, test_mode},
    {"BatchNormalization", 1, 9, per_activation},
    {"Cast", 1, 6, cast},
    {"Clip", 1, 11, clip},
    {"Concat", 1, 4, concat},
    {"ConvTranspose", 1, 11, spatial_shape},
    {"Dropout", 1, 7, test_mode},
    {"Dropout", 7, kEver, unread_outputs},
    {"ImageScaler", 1, kEver, image_scaler},
    {"MaxPool", 8, kEver, unread_outputs},
    {"Mean", 1, kEver, sum},
    {"PRelu", 1, 7, prelu},
    {"Pad", 1, 11, pad},
    {"Reshape", 1, 5, reshape},
    {"Resize", 10, 11, resize},
    {"Selu", 1, 6, selu},
    {"Slice", 1, 10, slice},
    {"Split", 1, 2, split},
    {"Sum", 1, kEver, sum},
    {"Tile", 1, 6, tile},
    {"TopK", 1, 10, top_k},
    {"Upsample", 1, 10, upsample},
    {"Upsample", 10, kEver, no_upsample},
};

}  // namespace

std::span<const Rule> rules() { return kRules; }

bool idle(const Rule& rule, const Node& n) { return rule.rewrite == unread_outputs && n.outputs.size() < 2; }

}  // namespace secateur::upgrading
