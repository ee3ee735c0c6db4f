# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

from .mutations import outdated


def test_list_of_mutants_fits_the_sources() -> None:
    assert not outdated()
