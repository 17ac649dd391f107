# deepseek_library(NAME SOURCES globs... LINK public libraries... PRIVATE libraries...)
# One static library from the files that match. A folder without sources gives a library of headers only.
# Sets NAME_SOURCES in the caller.

add_library(deepseek_flags INTERFACE)
target_include_directories(deepseek_flags INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
target_compile_options(deepseek_flags INTERFACE -Wall -Wextra -Werror -Wno-missing-field-initializers)

function(deepseek_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK;PRIVATE")
  list(TRANSFORM arg_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/)
  file(GLOB sources CONFIGURE_DEPENDS ${arg_SOURCES})
  if(sources)
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC deepseek_flags ${arg_LINK} PRIVATE ${arg_PRIVATE})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE deepseek_flags ${arg_LINK})
  endif()
  set(${name}_SOURCES ${sources} PARENT_SCOPE)
endfunction()
