// The whole public C++ API. An executable that was compiled elsewhere needs only deepseek/executable.h and
// libdeepseek_runtime.
#pragma once

#include "deepseek/compile.h"
#include "deepseek/dtype.h"
#include "deepseek/error.h"
#include "deepseek/executable.h"
#include "deepseek/executor.h"
#include "deepseek/graph.h"
#include "deepseek/onnxruntime.h"
#include "deepseek/profile.h"
#include "deepseek/shape.h"
#include "deepseek/tensor.h"
#include "deepseek/type.h"
