// One function per subject of the Python module; module.cc calls them.
#pragma once

#include <nanobind/nanobind.h>

void bind_session(nanobind::module_& m);      // session.cc: InferenceSession's native half
void bind_partition(nanobind::module_& m);    // partition.cc: the parts of a model that the engine does not run alone
void bind_formats(nanobind::module_& m);      // formats.cc: pack, unpack, measure, sections
void bind_projections(nanobind::module_& m);  // projections.cc: k-means, uniform grids, selection
