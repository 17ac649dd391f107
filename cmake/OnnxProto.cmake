# deepseek_onnx_proto: the C++ classes of onnx-ml.proto, which the installed `onnx` Python package carries.
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)
find_package(Protobuf REQUIRED)
execute_process(
  COMMAND ${Python_EXECUTABLE} -c
          "import importlib.util, os; print(os.path.dirname(importlib.util.find_spec('onnx').origin), end='')"
  OUTPUT_VARIABLE onnx_package RESULT_VARIABLE failed ERROR_QUIET)
find_file(DEEPSEEK_ONNX_PROTO onnx-ml.proto PATHS ${onnx_package} NO_DEFAULT_PATH)
if(NOT DEEPSEEK_ONNX_PROTO)
  message(FATAL_ERROR "onnx-ml.proto is needed: pip install onnx for ${Python_EXECUTABLE}, or set DEEPSEEK_ONNX_PROTO")
endif()

set(onnx_dir ${PROJECT_BINARY_DIR}/onnx)
file(MAKE_DIRECTORY ${onnx_dir})
get_filename_component(onnx_proto_dir ${DEEPSEEK_ONNX_PROTO} DIRECTORY)
add_custom_command(
  OUTPUT ${onnx_dir}/onnx-ml.pb.cc ${onnx_dir}/onnx-ml.pb.h
  COMMAND protobuf::protoc --cpp_out=${onnx_dir} -I ${onnx_proto_dir} ${DEEPSEEK_ONNX_PROTO}
  DEPENDS ${DEEPSEEK_ONNX_PROTO} VERBATIM)
add_library(deepseek_onnx_proto STATIC ${onnx_dir}/onnx-ml.pb.cc ${onnx_dir}/onnx-ml.pb.h)
target_include_directories(deepseek_onnx_proto SYSTEM PUBLIC ${onnx_dir} ${Protobuf_INCLUDE_DIRS})
find_library(DEEPSEEK_PROTOBUF_STATIC libprotobuf.a)
if(DEEPSEEK_PROTOBUF_STATIC)
  target_link_libraries(deepseek_onnx_proto PUBLIC ${DEEPSEEK_PROTOBUF_STATIC} Threads::Threads)
else()
  target_link_libraries(deepseek_onnx_proto PUBLIC protobuf::libprotobuf)
endif()
