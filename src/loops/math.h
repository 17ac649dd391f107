// The loop functions: transcendentals and the like as expressions of arithmetic, comparisons, selects, bit casts,
// Fma, Sqrt, Abs, Floor, Ceil, Trunc and Round, so that emitted code calls nothing. Branch-free: they widen to lanes.
// Coefficients come from tools/minimax.py.
//
// Measured maximal error in units in the last place, subnormal results included (tests/unit/loops_math_test.cc
// holds these bounds; F64 against long double, F32 against double):
//   F32: Exp 1.0, Expm1 1.5, Log 1.0, Log1p 1.5, Tanh 4.5, Sigmoid 3.0, Erf 4.5; all others 0.6, computed in
//        F64
//   F64: Exp 1.0, Expm1 2, Log 1.0, Log1p 2, Sin Cos 1.0, Tan 2, Asin Acos Atan Atan2 2, Sinh
//        Cosh 2, Tanh 2.5, Sigmoid 2, Asinh Acosh Atanh 2, Erf 1.0, Erfc 3.5, Pow 1.5
//   Sigmoid is 0 where it would be less than 2^-128 (F64: 2^-1024).
//   LGamma and Digamma: 5 units of max(1, |result|) for arguments > 0; of the largest term of the reflection below 0.
// Rem and Mod are exact. Narrow floats compute in F32 and round.
#pragma once

#include "loops/ir.h"

namespace deepseek::loops {

// The same program with every such function written out. What a target has as instructions stays: see above, and Ldexp
// where it has that.
Program expand_math(const Program& p, bool has_ldexp = false);
Expr expand_math(const Expr& e, bool has_ldexp = false);

}  // namespace deepseek::loops
