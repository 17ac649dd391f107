#include "ops/shape_ops.h"

namespace deepseek {

void add_shape_ops(OpTable& t) {
  add_view_ops(t);
  add_join_ops(t);
  add_make_ops(t);
  add_gather_ops(t);
  add_scatter_ops(t);
}

}  // namespace deepseek
