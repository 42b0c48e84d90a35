#include "kernels/graph.h"

#include <nvtx3/nvToolsExt.h>

#include "kernels/runtime.h"

namespace wrn::cuda {
namespace {

struct GraphDeleter {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
using GraphHandle = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, GraphDeleter>;

}  // namespace

Graph::Graph(const std::function<void()>& launch_all, Context& context) {
  const cudaStream_t stream = context.runtime().stream.get();
  WRN_CUDA_CALL(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t captured = nullptr;
  try {
    launch_all();
  } catch (...) {
    if (cudaStreamEndCapture(stream, &captured) == cudaSuccess) GraphHandle{captured};
    cudaGetLastError();
    throw;
  }
  WRN_CUDA_CALL(cudaStreamEndCapture(stream, &captured));
  const GraphHandle graph(captured);
  cudaGraphExec_t executable = nullptr;
  WRN_CUDA_CALL(cudaGraphInstantiate(&executable, graph.get(), 0));
  executable_ = std::shared_ptr<void>(
      executable, [](void* made) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(made)); });
}

void Graph::launch(Context& context) const {
  WRN_CUDA_CALL(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_.get()),
                                context.runtime().stream.get()));
}

Range::Range(const char* name) { nvtxRangePushA(name); }
Range::~Range() { nvtxRangePop(); }

}  // namespace wrn::cuda
