#include "simd/int8_avx512.h"
#include "kernels/qconv/depthwise.h"
#include "kernels/qconv/generic.h"
#include "kernels/qconv/row.h"

namespace secateur {

void qconv_sparse_task_vnni(const QConvView& v, const QConvTask& t) { sparse_task(v, t, std::make_integer_sequence<int, 14>()); }
void qconv_quad_task_vnni(const QConvView& v, const QConvTask& t) { quad_task(v, t, std::make_integer_sequence<int, 6>()); }
void qconv_dense_task_vnni(const QConvView& v, const QConvTask& t) { dense_task(v, t, std::make_integer_sequence<int, 6>()); }
void qconv_depthwise_task_vnni(const QConvView& v, const QConvTask& t) { depthwise_task(v, t); }
void qconv_row_task_vnni(const QConvView& v, const QConvTask& t) { row_task(v, t); }

}  // namespace secateur
