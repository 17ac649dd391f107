# deepseek_onnx_proto: the C++ classes of onnx-ml.proto, which the installed `onnx` Python package carries, for
# protobuf's lite runtime: no descriptors to register at start, so nothing to clash with another copy of ONNX.
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
  COMMAND protobuf::protoc --cpp_out=lite:${onnx_dir} -I ${onnx_proto_dir} ${DEEPSEEK_ONNX_PROTO}
  DEPENDS ${DEEPSEEK_ONNX_PROTO} VERBATIM)
add_library(deepseek_onnx_proto STATIC ${onnx_dir}/onnx-ml.pb.cc ${onnx_dir}/onnx-ml.pb.h)
target_include_directories(deepseek_onnx_proto SYSTEM PUBLIC ${onnx_dir} ${Protobuf_INCLUDE_DIRS})
target_link_libraries(deepseek_onnx_proto PUBLIC protobuf::libprotobuf-lite)

if(SKBUILD)  # A wheel brings the runtime along, under the name that the linker recorded.
  get_target_property(protobuf_file protobuf::libprotobuf-lite IMPORTED_LOCATION_RELEASE)
  if(NOT protobuf_file)
    get_target_property(protobuf_file protobuf::libprotobuf-lite IMPORTED_LOCATION)
  endif()
  file(REAL_PATH ${protobuf_file} protobuf_file)
  string(REGEX REPLACE "(\\.so\\.[0-9]+).*" "\\1" protobuf_soname ${protobuf_file})
  cmake_path(GET protobuf_soname FILENAME protobuf_soname)
  install(FILES ${protobuf_file} DESTINATION ${CMAKE_INSTALL_LIBDIR} RENAME ${protobuf_soname})
endif()
