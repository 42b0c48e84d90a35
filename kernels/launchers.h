// The table of contents of kernels/: every launcher there is. kernels.h includes this list once in
// namespace wrn::cpu and once in wrn::cuda; it is not for including elsewhere.
//
// Conventions. Tensors are dense, of Reals or fp32 or as said: images NHWC, filters KRSC (output
// channel, filter row, filter column, input channel), matrices row-major. On CUDA they begin at
// multiples of 16 bytes, as all allocated memory does. Outputs are overwritten.
// No two pointers may overlap unless the comment says "in place". A launcher checks what it is
// given, throws wrn::Error, and takes its Context last. Where scratch is needed, X_workspace()
// returns the bytes that Context::workspace must have while X runs. On CUDA pointers are device
// memory, and a launcher returns before its work is done: the context's stream keeps the order.
//
// A launcher marked WRN_OF_REAL takes what flows between layers as Reals: float on the CPU; on CUDA
// float or bf16, which it rounds to once an element is ready. Its arithmetic is fp32 in either
// case.

// --- Transfers ------------------------------------------------ cpu/input.cpp, runtime.cpp
/// Copies a few bytes (at most kUploadBytes) to the device in the order of the launches. `host` may
/// change as soon as this returns, and nothing waits for the device.
void upload(void* device, const void* host, std::size_t bytes, Context&);
/// Waits until everything launched is done, and throws what went wrong there.
void synchronise(Context&);

// --- Convolution ----------------------------------------- cpu/conv.cpp, conv3x3/conv.cu
/// x [n,h,w,c], w [k,r,r,c] -> y [n,p,q,k].
WRN_OF_REAL
void conv_fprop(const Real* x, const Real* w, Real* y, const ConvShape&, Context&);
/// dy [n,p,q,k], w [k,r,r,c] -> dx [n,h,w,c].
WRN_OF_REAL
void conv_dgrad(const Real* dy, const Real* w, Real* dx, const ConvShape&, Context&);
/// x [n,h,w,c], dy [n,p,q,k] -> dw [k,r,r,c].
WRN_OF_REAL
void conv_wgrad(const Real* x, const Real* dy, float* dw, const ConvShape&, Context&);
std::size_t conv_fprop_workspace(const ConvShape&, Context&);
std::size_t conv_dgrad_workspace(const ConvShape&, Context&);
std::size_t conv_wgrad_workspace(const ConvShape&, Context&);

// --- Batch norm, alone or with the ReLU behind it ---- cpu/batch_norm.cpp, batch_norm.cu, and
// channel_sums.cu for the running statistics
/// y = gamma (x - mean) / sqrt(variance + epsilon) + beta, over the batch's own mean[c] and
/// (biased) variance[c], which it writes. With relu, y = max(y, 0), and `mask`
/// (batch_norm_mask_bytes of opaque bytes) remembers where it was cut; without, mask is null. In
/// place: y may be x.
WRN_OF_REAL
void batch_norm_forward(const Real* x, const float* gamma, const float* beta, Real* y, float* mean,
                        float* variance, std::uint8_t* mask, const ImageShape&, float epsilon,
                        bool relu, Context&);
/// The same with given statistics, for evaluation. In place: y may be x.
WRN_OF_REAL
void batch_norm_inference(const Real* x, const float* gamma, const float* beta, const float* mean,
                          const float* variance, Real* y, const ImageShape&, float epsilon,
                          bool relu, Context&);
/// dy -> dx, dgamma[c], dbeta[c], through the ReLU when `relu`. In place: dx may be dy.
WRN_OF_REAL
void batch_norm_backward(const Real* x, const Real* dy, const float* gamma, const float* mean,
                         const float* variance, const std::uint8_t* mask, Real* dx, float* dgamma,
                         float* dbeta, const ImageShape&, float epsilon, bool relu, Context&);
std::size_t batch_norm_mask_bytes(const ImageShape&, Context&);
std::size_t batch_norm_forward_workspace(const ImageShape&, float epsilon, bool relu, Context&);
std::size_t batch_norm_inference_workspace(const ImageShape&, float epsilon, bool relu, Context&);
std::size_t batch_norm_backward_workspace(const ImageShape&, float epsilon, bool relu, Context&);
/// running = (1 - momentum) running + momentum batch, with the unbiased variance (rows/(rows-1)),
/// as PyTorch and Torch do; of all norms in one launch. Changes nothing once a loss was not finite.
void update_running_statistics(const std::vector<RunningStatistics>&, const Metrics*, Context&);

// --- Elementwise ----------------------------------- cpu/elementwise.cpp, elementwise.cu
/// y = max(x, 0). In place: y may be x.
WRN_OF_REAL
void relu_forward(const Real* x, Real* y, std::int64_t size, Context&);
/// dx = y > 0 ? dy : 0, from the ReLU's output. In place: dx may be dy.
WRN_OF_REAL
void relu_backward(const Real* y, const Real* dy, Real* dx, std::int64_t size, Context&);
/// out = a + b. In place: out may be a or b.
WRN_OF_REAL
void add(const Real* a, const Real* b, Real* out, std::int64_t size, Context&);
/// y = x / (1 - p) where the element is kept, else 0; `layer` numbers the network's dropouts. The
/// mask is a function of (seed, layer, step, row, element), so the backward pass is this same
/// launch on the gradient. x is [rows, row_size]. In place: y may be x.
WRN_OF_REAL
void dropout(const Real* x, Real* y, int rows, std::int64_t row_size, float p, int layer,
             const StepState*, Context&);

// --- Pooling ------------------------------------------------------ cpu/pool.cpp, pool.cu
/// y is fp32, as are the linear layer and the loss after the network's one average pool.
WRN_OF_REAL
void average_pool_forward(const Real* x, float* y, const PoolShape&, Context&);
WRN_OF_REAL
void average_pool_backward(const float* dy, Real* dx, const PoolShape&, Context&);
/// `argmax`: max_pool_argmax_bytes of opaque bytes, from the forward to the backward pass.
WRN_OF_REAL
void max_pool_forward(const Real* x, Real* y, std::uint8_t* argmax, const PoolShape&, Context&);
WRN_OF_REAL
void max_pool_backward(const Real* dy, const std::uint8_t* argmax, Real* dx, const PoolShape&,
                       Context&);
std::size_t max_pool_argmax_bytes(const PoolShape&, Context&);
std::size_t average_pool_forward_workspace(const PoolShape&, Context&);
std::size_t average_pool_backward_workspace(const PoolShape&, Context&);
std::size_t max_pool_forward_workspace(const PoolShape&, Context&);
std::size_t max_pool_backward_workspace(const PoolShape&, Context&);

// --- Linear ------------------------------------------------- cpu/linear.cpp, linear.cu
void linear_forward(const float* x, const float* w, const float* b, float* y, const LinearShape&,
                    Context&);
void linear_backward_data(const float* dy, const float* w, float* dx, const LinearShape&, Context&);
void linear_backward_weights(const float* x, const float* dy, float* dw, float* db,
                             const LinearShape&, Context&);
std::size_t linear_forward_workspace(const LinearShape&, Context&);
std::size_t linear_backward_data_workspace(const LinearShape&, Context&);
std::size_t linear_backward_weights_workspace(const LinearShape&, Context&);

// --- Loss and optimiser ----------------------------------- cpu/training.cpp, training.cu
/// logits [rows, classes], labels [rows] (a negative label is padding: no loss, no gradient) ->
/// loss[1], the mean over the images; dlogits = (softmax - one-hot) / images. Adds to Metrics.
/// dlogits may be null (evaluation). In place: dlogits may be logits.
void softmax_cross_entropy(const float* logits, const std::int32_t* labels, float* loss,
                           float* dlogits, Metrics*, int rows, int classes, Context&);
/// Nesterov's momentum as Torch writes it, over all parameters at once:
///   g = gradient + weight_decay w;  m = momentum m + g;  w -= learning_rate (g + momentum m)
/// and, unless it is null, copy = w rounded (only on CUDA: the CPU has no use for bf16). Changes
/// nothing once a loss was not finite.
void sgd_step(float* w, const float* gradient, float* m, bf16* copy, std::int64_t size,
              const StepState*, const Metrics*, Context&);

// --- Input ------------------------------------------- cpu/input.cpp, input.cu, shuffle.cu
/// Row i of x [rows,32,32,3] and labels[i] are image order[state->first + i] of the data set:
/// images [*,32,32,3] of bytes or floats. They are normalised, and with augment flipped with
/// probability 1/2, then padded by 4 pixels of reflection and cropped at random, keyed by (seed,
/// epoch, image). A negative entry of `order` is padding: zeros, label -1.
WRN_OF_REAL
void load_images(const std::uint8_t* images, const std::uint8_t* image_labels,
                 const std::int32_t* order, Real* x, std::int32_t* labels, int rows,
                 const Normalisation&, bool augment, const StepState*, Context&);
WRN_OF_REAL
void load_images(const float* images, const std::uint8_t* image_labels, const std::int32_t* order,
                 Real* x, std::int32_t* labels, int rows, const Normalisation&, bool augment,
                 const StepState*, Context&);
/// order[0..n) = items[0..n) in the order of an epoch: a stable sort by the Philox keys of the
/// positions 0..n-1.
void shuffle(const std::int32_t* items, std::int32_t* order, int n, std::uint64_t seed,
             std::uint32_t epoch, Context&);
std::size_t shuffle_workspace(int n, Context&);
