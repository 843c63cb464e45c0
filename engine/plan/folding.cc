#include "plan/folding.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "graph/check.h"

namespace secateur {

std::shared_ptr<Buffer> Folding::result(const Node& n, size_t nbytes) {
  const auto refuse = [&](const std::string& what) {
    throw TooLargeError("node '" + node_label(n) + "' (" + n.op + "): " + what, n.name);
  };
  if (nbytes > kMostBytes) refuse("a constant of " + std::to_string(nbytes) + " bytes would be computed");
  bytes_ += nbytes;
  if (bytes_ > may_)
    refuse("constants of " + std::to_string(bytes_) + " bytes would be computed, many times the file's own");
  return std::make_shared<Buffer>(std::max<size_t>(nbytes, 1));
}

}  // namespace secateur
