# What a user links, installed with the headers and a CMake package:
#   deepseek::runtime   libdeepseek_runtime: runs executables; neither LLVM nor protobuf is in it
#   deepseek::deepseek  libdeepseek: the compiler and the importers, LLVM and protobuf inside and hidden
# and deepseek-run, which runs saved executables.
include(CMakePackageConfigHelpers)

if(ds_runtime_SOURCES)
  set(libraries ds_runtime)
  add_library(deepseek::runtime ALIAS ds_runtime)
  set_target_properties(ds_runtime PROPERTIES OUTPUT_NAME deepseek_runtime EXPORT_NAME runtime)
  if(ds_api_SOURCES)
    list(APPEND libraries deepseek)
    add_library(deepseek SHARED ${PROJECT_SOURCE_DIR}/cmake/anchor.cc)
    add_library(deepseek::deepseek ALIAS deepseek)
    deepseek_link_all(deepseek)
    target_link_libraries(deepseek PUBLIC ds_runtime)
  endif()
  set(version_script ${PROJECT_SOURCE_DIR}/cmake/exports.map)
  foreach(library ${libraries})
    target_include_directories(
      ${library} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
    target_compile_features(${library} INTERFACE cxx_std_20)
    target_link_options(${library} PRIVATE -Wl,--version-script=${version_script} -Wl,--gc-sections
                                           -Wl,-Bsymbolic-functions -Wl,--as-needed)
    set_target_properties(${library} PROPERTIES LINK_DEPENDS ${version_script} INSTALL_RPATH $ORIGIN)
  endforeach()

  add_executable(deepseek-run ${PROJECT_SOURCE_DIR}/src/tools/run.cc ${PROJECT_SOURCE_DIR}/src/tools/npy.cc)
  target_link_libraries(deepseek-run PRIVATE ds_runtime)
  target_link_options(deepseek-run PRIVATE -Wl,--gc-sections)
  set_target_properties(deepseek-run PROPERTIES INSTALL_RPATH $ORIGIN/../${CMAKE_INSTALL_LIBDIR})

  set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/deepseek)
  install(TARGETS ${libraries} EXPORT deepseek-targets)
  install(TARGETS deepseek-run)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ DESTINATION include)
  install(EXPORT deepseek-targets NAMESPACE deepseek:: DESTINATION ${package_dir})
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/deepseek-config.cmake.in
                                ${PROJECT_BINARY_DIR}/deepseek-config.cmake INSTALL_DESTINATION ${package_dir})
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/deepseek-config-version.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/deepseek-config.cmake ${PROJECT_BINARY_DIR}/deepseek-config-version.cmake
          DESTINATION ${package_dir})
endif()
