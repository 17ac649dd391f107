# deepseek_library(NAME [SHARED] SOURCES globs... LINK public libraries... PRIVATE libraries...)
# One library from the files that match: its objects (deepseek_link_all links them), or SHARED. A folder without
# sources gives a library of headers only. Sets NAME_SOURCES in the caller.

add_library(deepseek_flags INTERFACE)
target_include_directories(deepseek_flags INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
target_compile_options(deepseek_flags INTERFACE -Wall -Wextra -Werror -Wno-missing-field-initializers
                                                -ffunction-sections -fdata-sections -ffp-contract=off)
if(DEEPSEEK_SANITIZE)
  # Generated code has no type in front of its entry, which -fsanitize=function would read.
  target_compile_options(deepseek_flags INTERFACE -fsanitize=${DEEPSEEK_SANITIZE} -fno-sanitize=function
                                                  -fno-sanitize-recover=all -fno-omit-frame-pointer
                                                  -D_GLIBCXX_ASSERTIONS)
  target_link_options(deepseek_flags INTERFACE -fsanitize=${DEEPSEEK_SANITIZE})
endif()
if(DEEPSEEK_BUILD_FUZZERS)
  target_compile_options(deepseek_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(deepseek_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

function(deepseek_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "SHARED" "" "SOURCES;LINK;PRIVATE")
  list(TRANSFORM arg_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/)
  file(GLOB sources CONFIGURE_DEPENDS ${arg_SOURCES})
  if(NOT sources)
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE $<BUILD_INTERFACE:deepseek_flags> ${arg_LINK})
  else()
    set(kind OBJECT)
    if(arg_SHARED)
      set(kind SHARED)
    endif()
    add_library(${name} ${kind} ${sources})
    target_link_libraries(${name} PUBLIC $<BUILD_INTERFACE:deepseek_flags> ${arg_LINK} PRIVATE ${arg_PRIVATE})
  endif()
  set(${name}_SOURCES ${sources} PARENT_SCOPE)
endfunction()

# Links the whole compiler into a target. All objects, not an archive: ops, ways and passes register themselves.
function(deepseek_link_all target)
  target_link_libraries(${target} PRIVATE ds_loops ds_graph ds_passes ds_target_cpu ds_target_interpreter ds_import_onnx
                                          ds_export_onnx
                                          ds_api ds_runtime)
endfunction()
