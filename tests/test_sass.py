#!/usr/bin/env python3
"""sass.py finds what it is for, in listings as cuobjdump writes them."""
import unittest

import sass

LISTING = """
	code for sm_90a
		Function : _Z3addv
        /*0000*/                   LDC R1, c[0x0][0x28] ;       /* 0x00000a00ff017b82 */
                                                                /* 0x000fe20000000800 */
        /*0010*/                   ACQBULK ;                    /* 0x000000000000782e */
        /*0020*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ; /* 0x0 */
        /*0030*/                   F2FP.BF16.F32.PACK_AB R3, R4, R5 ; /* 0x0 */
		Function : _Z3mulv
        /*0000*/                   EXIT ;                       /* 0x0 */
"""


class TestSass(unittest.TestCase):
    def test_reads_listings(self):
        kernels = sass.kernels_of(LISTING)
        self.assertEqual(list(kernels), [("_Z3addv", "sm_90a"), ("_Z3mulv", "sm_90a")])
        self.assertEqual(kernels["_Z3addv", "sm_90a"][2], "@!P0 LDG.E.128 R4, desc[UR4][R2.64]")

    def check(self, expected, *code, name="add<bf16, 8>", architecture="sm_90a"):
        self.assertEqual(len(sass.faults(name, architecture, list(code))), expected, code)

    def test_finds_faults(self):
        self.check(0, "ACQBULK", "LDG.E.128 R4, [R2]", "STG.E.128 [R2], R4")
        for early in "LDG.E R4, [R2]", "REDG.E.ADD [R2], R4", "@P0 STG.E [R2], R4", "UTMALDG.4D [UR8], [UR16]":
            self.check(1, early, "ACQBULK")
        self.check(0, "LDS R4, [R2]", "STS [R2], R4", "ACQBULK")
        self.check(1, "EXIT")
        self.check(0, "LDG.E.128 R4, [R2]", architecture="sm_80")
        self.check(1, "ACQBULK", "F2F.BF16.F32 R3, R4")
        self.check(0, "ACQBULK", "R2UR UR4, R8", "HGMMA", "HGMMA", "R2UR UR5, R8")
        self.check(1, "ACQBULK", "HGMMA", "R2UR UR4, R8", "HGMMA")
        self.check(2, "ACQBULK", "LDG.E.U16 R4, [R2]", "STG.E.U16 [R2], R4")
        self.check(0, "ACQBULK", "LDG.E.U16 R4, [R2]", name="add<bf16, 1>")

    def test_counts_ends(self):
        wait = "WARPGROUP.DEPBAR.LE gsb0, 0x0"
        code = ["HGMMA", wait, "HGMMA", wait, "FADD", "BRA", "USETMAXREG.DEALLOC.CTAPOOL 0x28"]
        self.assertEqual(sass.end_of_tile(code), 3)


if __name__ == "__main__":
    unittest.main()
