# Which of the three builds this is, by WRN_CUDA:
#   ON         the CUDA kernels, by nvcc, for CMAKE_CUDA_ARCHITECTURES
#   OFF        the CPU only
#   EMULATED   the CUDA kernels compiled for the host by tests/simt: for tests, not for use
#   AUTO       ON where there is an nvcc, else OFF (the default)
# Sets cuda_sources, cuda_libraries, and cuda_host_sources: those of kernels/*.cpp that speak CUDA.
set(WRN_CUDA AUTO CACHE STRING "AUTO, ON, OFF, or EMULATED (for the tests)")
set_property(CACHE WRN_CUDA PROPERTY STRINGS AUTO ON OFF EMULATED)

set(cuda_host_sources "")
foreach(name blas graph memory runtime tensor_map)
  list(APPEND cuda_host_sources ${CMAKE_SOURCE_DIR}/kernels/${name}.cpp)
endforeach()
file(GLOB cuda_kernels CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/kernels/*.cu ${CMAKE_SOURCE_DIR}/kernels/conv3x3/*.cu)
set(cuda_sources "")
set(cuda_libraries "")

set(wrn_cuda ${WRN_CUDA})
if(wrn_cuda STREQUAL AUTO)
  include(CheckLanguage)
  check_language(CUDA)
  set(wrn_cuda OFF)
  if(CMAKE_CUDA_COMPILER)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE nvcc_version)
    string(REGEX MATCH "V([0-9]+\\.[0-9]+)" nvcc_version "${nvcc_version}")
    if(CMAKE_MATCH_1 VERSION_GREATER_EQUAL 12.4)
      set(wrn_cuda ON)
    else()
      message(STATUS "wrn: nvcc ${CMAKE_MATCH_1} is too old, CUDA 12.4 or later is needed")
    endif()
  endif()
endif()

if(wrn_cuda STREQUAL ON)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    # The GPUs that are here; where there are none, 8.0 in a form that later ones can run too, and
    # 9.0 with all that only Hopper has.
    execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                    OUTPUT_VARIABLE present ERROR_QUIET RESULT_VARIABLE failed)
    set(CMAKE_CUDA_ARCHITECTURES 80 90a-real)
    if(NOT failed AND present MATCHES "[0-9]")
      string(REGEX MATCHALL "[0-9]+\\.[0-9]+" present "${present}")
      list(FILTER present EXCLUDE REGEX "^[0-7]\\.")  # too old for the program
      list(REMOVE_DUPLICATES present)
      list(TRANSFORM present REPLACE "\\." "")
      list(TRANSFORM present REPLACE "^90$" "90a")
      list(TRANSFORM present APPEND "-real")
      if(present)
        set(CMAKE_CUDA_ARCHITECTURES ${present})
      endif()
    endif()
  endif()
  foreach(architecture ${CMAKE_CUDA_ARCHITECTURES})
    string(REGEX MATCH "^[0-9]+" number "${architecture}")
    if(number AND number LESS 80)
      message(FATAL_ERROR "CUDA architecture ${architecture}: GPUs of compute capability 8.0 or later "
                          "are needed (or -DWRN_CUDA=OFF)")
    endif()
    if(architecture MATCHES "^(90(-.*)?|native)$" AND NOT CMAKE_CUDA_ARCHITECTURES MATCHES "90a")
      message(WARNING "CUDA architecture ${architecture}: what only a Hopper has needs 90a")
    endif()
  endforeach()
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.4)
    message(FATAL_ERROR "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is too old: CUDA 12.4 or later is "
                        "needed (or -DWRN_CUDA=OFF)")
  endif()
  list(PREPEND CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_SOURCE_DIR}/cmake/ptxas_log.sh)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  # Early versions of CMake 3.25 do not know that nvcc has C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  find_package(CUDAToolkit REQUIRED)
  set(cuda_sources ${cuda_kernels} ${cuda_host_sources})
  # Static, so that a binary runs wherever there is a driver. cuBLAS is found when it is first used.
  set(cuda_libraries CUDA::cudart_static ${CMAKE_DL_LIBS})
  target_compile_definitions(wrn_options INTERFACE WRN_CUDA)
  if("90a" IN_LIST CMAKE_CUDA_ARCHITECTURES OR "90a-real" IN_LIST CMAKE_CUDA_ARCHITECTURES)
    target_compile_definitions(wrn_options INTERFACE WRN_SM90A)  # v5 of the convolutions
  endif()
  message(STATUS "wrn: CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
elseif(wrn_cuda STREQUAL EMULATED)
  find_path(CUDA_HEADERS cuda_runtime_api.h
            HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES include)
  require(CUDA_HEADERS "cuda_runtime_api.h" "nvidia-cuda-dev")
  find_package(Boost QUIET COMPONENTS context)
  require(Boost_FOUND "Boost.Context" "libboost-context-dev")
  # The kernels are C++ to g++ but for their names. Thrust, CUB and cuBLAS have stand-ins.
  list(REMOVE_ITEM cuda_kernels ${CMAKE_SOURCE_DIR}/kernels/shuffle.cu)
  list(REMOVE_ITEM cuda_host_sources ${CMAKE_SOURCE_DIR}/kernels/blas.cpp)
  set_source_files_properties(${cuda_kernels} PROPERTIES
    LANGUAGE CXX COMPILE_OPTIONS "-O2;-Wno-unknown-pragmas")  # unroll
  file(GLOB simt_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/simt/*.cpp)
  # To ThreadSanitizer, the threads are the GPU's: what switches between them, and what they do by
  # the machine's means, must not count as accesses.
  set(simt_machine "")
  foreach(name async hopper scheduler tensor_core wgmma)
    list(APPEND simt_machine ${CMAKE_SOURCE_DIR}/tests/simt/${name}.cpp)
  endforeach()
  set_source_files_properties(${simt_machine} PROPERTIES COMPILE_OPTIONS -O2)
  if(WRN_SANITIZE STREQUAL thread)
    set_source_files_properties(${simt_machine} PROPERTIES
      COMPILE_OPTIONS "-O2;-fno-sanitize=thread")
  endif()
  set(cuda_sources ${cuda_kernels} ${cuda_host_sources} ${simt_sources})
  list(APPEND cuda_host_sources ${CMAKE_SOURCE_DIR}/kernels/blas.cpp)
  set(cuda_libraries Boost::context)
  target_compile_definitions(wrn_options INTERFACE WRN_CUDA WRN_EMULATED WRN_SM90A)
  target_include_directories(wrn_options SYSTEM INTERFACE ${CUDA_HEADERS})
  target_include_directories(wrn_options INTERFACE ${CMAKE_SOURCE_DIR}/tests)
  message(STATUS "wrn: emulated CUDA build, for tests")
elseif(wrn_cuda STREQUAL OFF)
  message(STATUS "wrn: CPU-only build (no CUDA)")
else()
  message(FATAL_ERROR "WRN_CUDA is ${WRN_CUDA}; it can be AUTO, ON, OFF or EMULATED")
endif()
