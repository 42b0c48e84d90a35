#!/usr/bin/env python3
"""Every planted bug is found, and the message names the kernel or the call.

usage: test_planted_bugs.py ADDRESS THREAD [unittest's arguments]

ADDRESS and THREAD are planted_bugs, built with AddressSanitizer and UBSan, and with ThreadSanitizer.
"""
import os
import subprocess
import sys
import unittest

PROGRAMS = {}


def run(build, case, **environment):
    return subprocess.run([PROGRAMS[build], case], env={**os.environ, **environment}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)


class TestPlantedBugs(unittest.TestCase):
    def check(self, build, case, *expected, seeds=(0, 1)):
        """Fails with all of `expected` in the output, in more than one order."""
        for seed in seeds:
            with self.subTest(build=build, case=case, seed=seed):
                done = run(build, case, WRN_SIMT_SEED=str(seed))
                self.assertNotEqual(done.returncode, 0, done.stdout)
                for text in expected:
                    self.assertIn(text, done.stdout)

    def test_correct_kernels_pass(self):
        for build in PROGRAMS:
            for case in ("reduction", "transpose", "last_block", "graph", "copies", "products",
                         "hopper"):
                for seed in 0, 4, 8:  # each poison, each progress
                    with self.subTest(build=build, case=case, seed=seed):
                        done = run(build, "clean_" + case, WRN_SIMT_SEED=str(seed))
                        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_races(self):
        # Work runs late with these seeds: what is launched does not know the end of what came before.
        for case, kernel in (("missing_barrier", "forgets_barrier"),
                             ("missing_warp_barrier", "shuffles_for_a_barrier"),
                             ("missing_fence", "forgets_fence"),
                             ("read_too_soon", "reads_before_it_waits"),
                             ("race_between_blocks", "writes_of_all_blocks"),
                             ("missing_barrier_after_wait", "waits_without_barrier"),
                             ("stage_reused", "fills_stage_too_soon"),
                             ("missing_barrier_before_ldmatrix", "loads_without_barrier")):
            self.check("thread", case, "WARNING: ThreadSanitizer: data race", kernel)

    def test_out_of_bounds(self):
        for case, access in (("shared_read", "READ"), ("shared_write", "WRITE"),
                             ("global_read", "READ"), ("global_write", "WRITE")):
            memory = case.split("_")[0]
            self.check("address", case, "heap-buffer-overflow", access + " of size 4",
                       f"{access.lower()}s_past_{memory}")

    def test_copy_out_of_bounds(self):
        self.check("address", "copy_source", "heap-buffer-overflow", "READ of size 16",
                   "copies_past_the_end")

    def test_misaligned_vector(self):
        self.check("address", "misaligned", "misaligned address", "float4", "planted_bugs.cu")

    def test_memory_that_is_gone(self):
        self.check("address", "use_after_free", "heap-use-after-free", "add_one")

    def test_host_uses_device_memory(self):
        self.check("address", "host_access", "use-after-poison", "host_access")

    def test_named_by_the_emulation(self):
        kernel = "simt: kernel {}, block ({},0,0)".format
        for build in PROGRAMS:
            self.check(build, "missing_kernel_wait", kernel("never_waits_for_kernels", 0),
                       "without having waited for previous kernels")
            self.check(build, "barrier_after_exit", "simt: kernel exits_before_barrier, block (",
                       "each of threads 0-39 waits at __syncthreads() at ", "planted_bugs.cu:",
                       "each of threads 40-63 has exited")
            self.check(build, "divergent_barrier", kernel("barriers_in_branches", 0),
                       "each of threads 0-31 waits at __syncthreads() at ",
                       "each of threads 32-63 waits at __syncthreads() at ")
            self.check(build, "divergent_shuffle", kernel("shuffles_in_branch", 0),
                       "waits at __shfl_down_sync() of the lanes 0xffffffff at ",
                       "each of threads 16-31 has exited")
            self.check(build, "shuffle_outside_mask", kernel("shuffles_from_outside", 0),
                       "__shfl_sync() of the lanes 0x0000ffff", "reads lane 20")
            self.check(build, "shared_too_small", kernel("needs_more_shared", 0),
                       "shared_storage() of 256 bytes, launched with 252")
            self.check(build, "uninitialised_shared", "depend on uninitialised memory",
                       "reads_unwritten_shared")
            self.check(build, "missing_wait", kernel("never_waits", 0),
                       "exits with copies under way, which nobody waited for")
            self.check(build, "wait_off_by_one", kernel("waits_for_too_few", 0), "ldmatrix at ",
                       "planted_tensor_core.cu:",
                       "reads what a cp.async writes, which its thread has not waited for")
            self.check(build, "stage_overwritten", "depend on when asynchronous work is done",
                       "overwrites_before_reading")
            self.check(build, "copy_target", kernel("copies_past_shared", 0), "cp.async at ",
                       "to an address outside of shared memory")
            self.check(build, "copy_misaligned", kernel("copies_between", 0), "cp.async at ",
                       "of 16 bytes to or from an address that is no multiple")
            self.check(build, "ldmatrix_misaligned", kernel("loads_between", 0), "ldmatrix at ",
                       "reads a row that is not 16-byte aligned")
            self.check(build, "divergent_product", kernel("multiplies_in_branch", 0),
                       "each of threads 0-15 waits at mma of bf16 of the lanes 0xffffffff at ",
                       "each of threads 16-31 has exited")
            self.check(build, "unrounded_operand", kernel("multiplies_unrounded", 0),
                       "mma of tf32 at ", "drops bits of an operand that was not rounded")
            self.check(build, "double_free", "simt: cudaFree(0x", "already freed")
            self.check(build, "leak", "simt: leak: 1 device allocations, 1024 bytes")
            # Work runs late with these seeds, so it shows that nobody waited.
            self.check(build, "missing_synchronisation", "add_one has not run: 0")
            self.check(build, "pinned_reuse", "cudaMemcpyAsync copied 0")
            self.check(build, "allocates_in_capture", "cudaErrorStreamCaptureUnsupported")
        # A race, so ThreadSanitizer says so, too.
        self.check("address", "order_dependence", "depend on the order of threads or blocks",
                   "writes_of_all_blocks")

    def test_hopper(self):
        """By whatever moment a seed draws: each poison and each progress."""
        stuck = ("no thread can go on", "waits at mbarrier.try_wait at ", "for phase ", ", pending ",
                 " bytes to come")
        box, product = "cp.async.bulk.tensor to shared memory at ", "wgmma.mma_async at "
        cases = {
            "forgets_proxy_fence": ("cp.async.bulk.tensor to global memory at ",
                                    "reads what was stored with no fence.proxy.async since"),
            "refills_after_load": (box, "over what a thread has used itself, with no fence"),
            "releases_early": (box, "over what an asynchronous product or store still reads"),
            "misaligned_box": (box, "which is not aligned to the swizzle's 1024 bytes"),
            "unshifted_stride": (product, "reads A at shared memory + "),
            "expects_more": stuck,
            "expects_less": (product, "reads B at shared memory + "),
            "keeps_parity": ("mbarrier.try_wait at ", "waits for parity 0 when the phase"),
            "starts_with_other_parity": stuck,
            "every_lane_arrives": ("mbarrier.arrive at ", "completes a phase before those who waited"),
            "forgets_init_fence": (box, "at an mbarrier without fence.mbarrier_init"),
            "forgets_full": (product, "reads A at shared memory + "),
            "loads_unwaited": ("a load from shared memory at ",
                               "in a phase that no thread of the warpgroup has waited for"),
            "loads_unwritten": ("a load from shared memory at ", "where nothing has been written"),
            "takes_registers": ("waits at setmaxnreg.inc at ", "for 256 registers a thread; 0 are"),
            "one_warp_drops": ("waits at setmaxnreg.dec at ", "has exited"),
            "forgets_product_fence": (product, "on registers that no wgmma.fence came before"),
            "forgets_products": (box, "over what an asynchronous product or store still reads"),
            "reads_sums_early": ("have exited, and nobody has waited for products under way", ),
            "leaves_box": ("have exited, and nobody has waited for a box that came to the mbarrier", ),
            "forgets_stores": ("exits with bulk stores under way", ),
            "negative_store": ("has a negative coordinate", ),
            "no_map": (box, "by what is no tensor map"),
            "bad_maps": ("refused 6 maps", ),
        }
        for build in PROGRAMS:
            for case, expected in cases.items():
                named = () if case == "bad_maps" else ("simt: kernel hopper_product, block (", )
                self.check(build, case, *expected, *named, seeds=(0, 4, 8))


class TestEnvironment(unittest.TestCase):
    def test_devices_that_cannot_be_used(self):
        for name, value, error in (("WRN_SIMT_DEVICES", "0", "cudaErrorNoDevice"),
                                   ("WRN_SIMT_DRIVER", "old", "cudaErrorInsufficientDriver"),
                                   ("WRN_SIMT_ARCH", "unsupported",
                                    "cudaErrorNoKernelImageForDevice"),
                                   ("WRN_SIMT_MEMORY", "100", "cudaErrorMemoryAllocation")):
            with self.subTest(name):
                done = run("address", "clean_reduction", **{name: value})
                self.assertEqual(done.returncode, 2)
                self.assertIn(error, done.stdout)


if __name__ == "__main__":
    PROGRAMS.update(address=sys.argv[1], thread=sys.argv[2])
    unittest.main(argv=sys.argv[:1] + sys.argv[3:])
