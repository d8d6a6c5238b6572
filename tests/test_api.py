"""The public face: `import gtpo_jax as gx`, and the page that lists it."""

import importlib.util
import pathlib
import subprocess
import sys

import gtpo_jax as gx

ROOT = pathlib.Path(__file__).parents[1]


def test_rooms_are_attributes_and_importing_loads_no_jax():
    code = (
        "import sys, gtpo_jax as gx; assert 'jax' not in sys.modules;"
        "assert gx.methods.gtpo().loss.needs == frozenset();"
        "assert gx.parts.credit.SETS['group'] is gx.parts.credit.group"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert set(gx.__all__) <= set(dir(gx))
    for name in gx.__all__:
        assert getattr(gx, name).__name__ == f"gtpo_jax.{name}"


def test_page_of_the_api_is_that_of_the_docstrings():
    spec = importlib.util.spec_from_file_location("write_api", ROOT / "docs" / "write_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), (
        "python docs/write_api.py writes it anew"
    )
