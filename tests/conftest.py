"""Set-up of all tests: eight fake CPU devices, checked shapes, cached programs."""

import collections
import gc
import os
from importlib import metadata
from pathlib import Path

# Read when jax and matplotlib are first imported, and inherited by the processes that tests start.
os.environ["JAX_PLATFORMS"] = os.environ.get("GTPO_TEST_PLATFORM", "cpu")
os.environ["MPLBACKEND"] = "Agg"
# Half of the suite's time would be the compiler's, for programs that run once: with these flags it
# does less to the same HLO. `XLA_FLAGS=--xla_backend_optimization_level=3` asks for all of it.
FLAGS = os.environ.get("XLA_FLAGS", "")
if os.environ["JAX_PLATFORMS"] == "cpu" and "xla_backend_optimization_level" not in FLAGS:
    # XLA knows the first only before 0.11.2 and dies of flags that it does not know.
    old = metadata.version("jaxlib").startswith("0.10.")
    sooner = "xla_cpu_use_fusion_emitters=false" if old else "xla_cpu_opt_preset=FAST_COMPILE"
    os.environ["XLA_FLAGS"] = f"{FLAGS} --xla_backend_optimization_level=0 --{sooner}".strip()
# One folder a worker: JAX does not write the entries of its cache atomically.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
CACHE = Path(__file__).parents[1] / ".cache" / "jax" / WORKER
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"

import hypothesis
import jax
import jaxtyping
import pytest

# Set before any device is asked for; it changes nothing once a backend runs.
jax.config.update("jax_num_cpu_devices", 8)

# The first example of a shape compiles a program, so a deadline would say nothing.
hypothesis.settings.register_profile("compiled", deadline=None, derandomize=True)
hypothesis.settings.load_profile("compiled")

MATHS_ROOMS = [
    "gtpo_jax.maths.divergences",
    "gtpo_jax.maths.logprobs",
    "gtpo_jax.maths.masking",
    "gtpo_jax.maths.ratios",
    "gtpo_jax.maths.similarity",
    "gtpo_jax.maths.turns",
    "gtpo_jax.maths.units",
    "gtpo_jax.parts",
]
# From here on a call of a maths room with a wrong shape or dtype names the argument and raises.
jaxtyping.install_import_hook(MATHS_ROOMS, "beartype.beartype")


def pytest_runtest_teardown(item, nextitem):
    """Compiled programs live as long as the folder of their tests: they would fill the memory. The
    garbage collector passes over what earlier files left behind, or it would take more and more of
    the time.
    """
    following = nextitem and nextitem.path
    if following and following.parent != item.path.parent:
        gc.unfreeze()
        jax.clear_caches()
        gc.collect()
    if following != item.path:
        gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Says in a line what this machine lacks for the tests that were skipped."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    reasons = collections.Counter(reason.removeprefix("Skipped: ") for _, _, reason in skipped)
    if reasons:
        told = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"{len(skipped)} skipped: {told}")


@pytest.fixture
def key() -> jax.Array:
    """A typed random key, the same for every test."""
    return jax.random.key(0)


@pytest.fixture
def strict_rank():
    """Refuses implicit rank promotion, as in `[B, T] * [T]`, for the length of a test."""
    with jax.numpy_rank_promotion("raise"):
        yield
