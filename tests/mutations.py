# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Change the sign or a constant of each equation in a copy of the sources, and see whether the tests notice.

    python tests/mutations.py            # all
    python tests/mutations.py training/  # those of files, or caught by tests, whose names contain a word

Each mutant runs in a forked process, so that torch and anomalib are imported once: this needs Linux or macOS.
"""

import importlib
import os
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

# imported before the processes are forked; none of them imports the package
HEAVY = ("anomalib.cli", "anomalib.deploy", "anomalib.engine", "kornia", "scipy.stats", "sklearn.metrics", "hypothesis")
WRONG = 9  # exit status for tests that imported another package than the mutant
ROOT = Path(__file__).parent.parent
# file, what it says, what the mutant says, tests that should fail
MUTATIONS = (
    ("diffusion.py", "torch.cumprod(1 - beta,", "torch.cumprod(1 + beta,", "test_diffusion.py"),
    ("diffusion.py", "scale = 1000 / num_timesteps", "scale = 1", "test_diffusion.py"),
    ("diffusion.py", "* image + (1 - alpha_bar)", "* image - (1 - alpha_bar)", "test_diffusion.py"),
    ("diffusion.py", "(1 - alpha_bar).sqrt() * noise\n\n", "(1 - alpha_bar) * noise\n\n", "test_diffusion.py"),
    (
        "diffusion.py",
        "(noisy - (1 - alpha_bar).sqrt() * noise) /",
        "(noisy + (1 - alpha_bar).sqrt() * noise) /",
        "test_diffusion.py",
    ),
    ("diffusion.py", "* noise) / alpha_bar.sqrt()", "* noise) / alpha_bar", "test_diffusion.py"),
    ("diffusion.py", "guidance_scale * (1 - alpha_bar_small)", "guidance_scale * alpha_bar_small", "test_diffusion.py"),
    ("diffusion.py", "torch.lerp(small, big,", "torch.lerp(big, small,", "test_diffusion.py"),
    (
        "diffusion.py",
        "alpha = alpha_bar / alpha_bar_previous",
        "alpha = alpha_bar_previous / alpha_bar",
        "test_diffusion.py",
    ),
    ("diffusion.py", "mean = (noisy - (1 - alpha)", "mean = (noisy + (1 - alpha)", "test_diffusion.py"),
    ("diffusion.py", "return mean + variance.sqrt() * z", "return mean + variance * z", "test_diffusion.py"),
    ("diffusion.py", "/ (1 - alpha_bar) * (1 - alpha)", "/ (1 - alpha_bar) * alpha", "test_diffusion.py"),
    ("loss.py", "errors[0] + errors[1] if", "errors[0] - errors[1] if", "test_loss.py"),
    ("loss.py", "share = normal / normal.sum()", "share = (1 - normal) / normal.sum()", "test_loss.py"),
    ("compact/linear_denoiser.py", "level.sqrt() * variance / (", "variance / (", "compact/test_linear_denoiser.py"),
    ("compact/linear_denoiser.py", "count // 8", "count", "compact/test_linear_denoiser.py"),
    (
        "diffusion.py",
        "(noisy - alpha_bar.sqrt() * image) /",
        "(noisy - alpha_bar * image) /",
        "compact/test_linear_denoiser.py",
    ),
    ("torch_model.py", "noise + ratio * (image - clean)", "noise", "compact/test_linear_denoiser.py"),
    ("compact/segmentation.py", "_flipped(found[number], axes)", "found[number]", "compact/test_networks.py"),
    ("compact/segmentation.py", "[compared] * 3 + [alone]", "[compared] * 4", "compact/test_networks.py"),
    ("training/linear_fit.py", "ALIGNED = 1.5", "ALIGNED = 1.1", "training/test_linear_fit.py"),
    ("training/replay.py", "PIXELS // new[0, 0].numel()", "PIXELS", "training/test_replay.py"),
    ("comparison/scores.py", "scores.score > image", "scores.score >= image", "comparison/test_scores.py"),
    ("training/linear_fit.py", "self.any_pose = not aligned", "self.any_pose = aligned", "training/test_linear_fit.py"),
    (
        "training/mask_check.py",
        "alike if resized else mask.size == (width, height)",
        "alike",
        "training/test_input_check.py",
    ),
    ("training/input_check.py", "folder.parent in folders or", "", "data/test_files.py"),
    ("training/muon.py", "MOMENTUM).add_(gradient)", "0).add_(gradient)", "training/test_muon.py"),
    ("loss.py", "(SMALL_SHARE / area)", "(area / SMALL_SHARE)", "test_loss.py"),
    ("loss.py", "FOCAL_ALPHA = 0.5", "FOCAL_ALPHA = 0.25", "test_loss.py"),
    ("loss.py", "FOCAL_GAMMA = 4.0", "FOCAL_GAMMA = 2.0", "test_loss.py"),
    ("loss.py", "beta=1.0", "beta=0.5", "test_loss.py"),
    ("loss.py", "noise_term + smooth_l1 + self", "noise_term - smooth_l1 + self", "test_loss.py"),
    ("loss.py", "noise_term + smooth_l1 + self.focal_weight * focal", "noise_term + smooth_l1 + focal", "test_loss.py"),
    ("loss.py", "return smooth_l1 + self.focal_weight * focal", "return smooth_l1 + focal", "test_loss.py"),
    (
        "synthesis/synthesizer.py",
        "torch.lerp(appearance, normal, opacity)",
        "torch.lerp(normal, appearance, opacity)",
        "synthesis/test_synthesizer.py",
    ),
    (
        "synthesis/synthesizer.py",
        "MIN_OPACITY, MAX_OPACITY = 0.2, 0.8",
        "MIN_OPACITY, MAX_OPACITY = 0.1, 0.9",
        "synthesis/test_synthesizer.py",
    ),
    ("synthesis/shapes.py", "THRESHOLD = 0.5", "THRESHOLD = 0.4", "synthesis/test_shapes.py"),
    ("synthesis/shapes.py", "MAX_SCALE_EXPONENT = 5", "MAX_SCALE_EXPONENT = 4", "synthesis/test_shapes.py"),
    ("synthesis/shapes.py", "(t * (t * 6 - 15) + 10)", "(t * (t * 6 + 15) + 10)", "synthesis/test_shapes.py"),
    ("synthesis/shapes.py", "missing = missing[met == 0]", "missing = missing[:0]", "synthesis/test_shapes.py"),
    (
        "synthesis/synthesizer.py",
        "torch.autocast(device, enabled=False)",
        "torch.autocast(device, enabled=torch.is_autocast_enabled(device))",
        "synthesis/test_synthesizer.py",
    ),
    (
        "synthesis/synthesizer.py",
        "set_default_dtype(torch.float32)",
        "set_default_dtype(default)",
        "synthesis/test_synthesizer.py",
    ),
    (
        "synthesis/synthesizer.py",
        "foreground.geometry = origin.geometry",
        "foreground.geometry = self.foreground.geometry",
        "synthesis/test_synthesizer.py",
    ),
    ("data/geometry.py", "seen >= MIN_COVER * around - ROUNDING", "seen >= MIN_COVER", "data/test_geometry.py"),
    ("data/geometry.py", "anchor=(0, 0)", "anchor=(-1, -1)", "data/test_geometry.py"),
    ("data/geometry.py", "Geometry(augmentations, transform)", "Geometry(transform)", "data/test_geometry.py"),
    ("data/geometry.py", "transform.p = 1.0", "transform.p = 0.0", "data/test_geometry.py"),
    (
        "training/input_check.py",
        "image.shape[1:] == (3, *sides(image_size))",
        "image.shape[1] == 3",
        "training/test_ways_into_training.py",
    ),
    ("unet.py", "math.log(10000)", "math.log(1000)", "test_unet.py"),
    ("unet.py", "[angles.sin(), angles.cos()]", "[angles.cos(), angles.sin()]", "test_unet.py"),
    ("unet.py", 'mode="nearest").to(x.dtype)', 'mode="nearest")', "test_unet.py"),
    ("unet.py", "mean = mean + shift", "mean = mean - shift", "test_unet_normalization.py"),
    ("unet.py", "within + (mean - group_mean)", "within - (mean - group_mean)", "test_unet_normalization.py"),
    ("unet.py", "(shift - group_mean) * scale", "(shift + group_mean) * scale", "test_unet_normalization.py"),
    ("unet.py", ".clamp(min=0)", ".clamp(min=1)", "test_unet_normalization.py"),
    ("export/compression.py", "[*float_layers(graph), *", "[*ends(graph), *", "test_export.py"),
    ("export/compression.py", "        measure.reset()\n", "", "test_export.py"),
    ("hardware.py", "return any(", "return not any(", "test_hardware.py"),
    ("training/progress.py", "elapsed / (elapsed + remaining)", "elapsed / remaining", "training/test_progress.py"),
    (
        "training/progress.py",
        "max(step / self._steps, self._by_time())",
        "min(step / self._steps, self._by_time())",
        "training/test_progress.py",
    ),
    (
        "training/progress.py",
        "if self._trainer.world_size > 1 else share",
        "if False else share",
        "training/test_progress.py",
    ),
    ("training/progress.py", "self._known[0] != step", "self._known[0] >= 0", "training/test_progress.py"),
    ("training/replay.py", "if not stepped or len", "if len", "training/test_replay.py"),
    ("training/replay.py", " / distributed.get_world_size()", "", "training/test_replay.py"),
    ("training/finite_loss.py", 'reduce_op="max"', 'reduce_op="min"', "test_faults.py"),
    (
        "training/replay.py",
        "(max(1, count // 2),), generator=generator",
        "(max(1, count // 2),)",
        "training/test_replay.py",
    ),
    ("training/replay.py", "parameter.grad = gradient\n", "parameter.grad = None\n", "training/test_replay.py"),
    (
        "training/symmetries.py",
        "values.rot90(quarters if square else 2 * (quarters % 2), (2, 3))",
        "values",
        "training/test_symmetries.py",
    ),
    ("training/thresholds.py", "with holding(module.model, weights), ", "with ", "training/test_thresholds.py"),
    ("training/thresholds.py", "torch.zeros_like(steps.mask)", "steps.mask", "training/test_thresholds.py"),
    (
        "training/last_checkpoint.py",
        "self._thresholds.run_is_over = True",
        "self._thresholds.run_is_over = False",
        "training/test_last_checkpoint.py",
    ),
    ("torch_model.py", "(sigma, sigma)", "(2 * sigma, sigma)", "test_torch_model.py"),
    ("torch_model.py", "big = big.clamp(-1, 1)", "big = big.clamp(-2, 2)", "test_official.py"),
    ("torch_model.py", "values.mean(dim=1)", "values.amax(dim=1)", "test_torch_model.py"),
    ("lightning_model.py", "counts = 1 - label if", "counts = label if", "test_lightning_model.py"),
    ("training/finite_loss.py", "copy_(loss, non_blocking=True)", "copy_(loss)", "test_on_a_gpu.py"),
    ("training/finite_loss.py", "pin_memory=True", "pin_memory=False", "test_on_a_gpu.py"),
    (
        "unet.py",
        "return F.group_norm(x, self.num_groups, weight, bias, self.eps)",
        "return torch.native_group_norm(x, weight, bias, *x.shape[:2], x[0, 0].numel(), self.num_groups, self.eps)[0]",
        "test_unet.py",
    ),
)


def outdated() -> list[str]:
    """Mutants that the sources no longer hold exactly once."""
    package = ROOT / "src" / "anomalib_diffusionad"
    return [f"{name}: {old!r}" for name, old, _, _ in MUTATIONS if (package / name).read_text().count(old) != 1]


def run(package: Path, tests: str) -> tuple[bool, str]:
    """Run tests against a package; whether they pass, and the first that fails."""
    log = package.parent / "log.txt"
    process = os.fork()
    if process == 0:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(out, stream)
        os.chdir(package.parent)
        os.environ["PYTHONPATH"] = str(package.parent)  # for commands that tests start
        sys.path.insert(0, str(package.parent))
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / tests)])
        os._exit(int(code) if sys.modules[package.name].__file__ == str(package / "__init__.py") else WRONG)
    _, status = os.waitpid(process, 0)
    code, said = os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
    if code not in {0, 1}:
        sys.exit(f"Tests did not run against the mutant: {said[-2000:]}")
    failed = re.search(r"^(?:FAILED|ERROR) \S*?(test_\w+\.py\S*)", said, re.MULTILINE)
    return code == 0, failed.group(1) if failed else said[-200:]


def main() -> None:
    """Print a line for each mutant; exit with 1 if one lives."""
    if names := outdated():
        sys.exit("The sources do not hold these exactly once:\n" + "\n".join(names))
    words = sys.argv[1:] or [""]
    chosen = [mutation for mutation in MUTATIONS if any(word in mutation[0] or word in mutation[3] for word in words)]
    for module in HEAVY:
        importlib.import_module(module)
    alive = 0
    for name, old, new, tests in chosen:
        with TemporaryDirectory() as scratch:
            package = Path(scratch) / "anomalib_diffusionad"
            shutil.copytree(ROOT / "src" / "anomalib_diffusionad", package)
            (package / name).write_text((package / name).read_text().replace(old, new))
            lives, failed = run(package, tests)
        alive += lives
        print(f"{name:26} {old.strip():45} -> {new.strip():45} {'ALIVE' if lives else failed}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutants were caught.")
    sys.exit(alive > 0)


if __name__ == "__main__":
    main()
