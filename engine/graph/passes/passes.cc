#include "graph/passes/passes.h"

namespace secateur {

Notes run_passes(Graph& graph) {
  Notes notes;
  return notes;
}

}  // namespace secateur
