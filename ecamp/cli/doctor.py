"""`ecamp doctor`: is everything that a bench needs here, and fit together?"""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import click

FIX_TORCH = "pip install torch==2.11.0 torchvision==0.26.0 (both from the package index)"


@click.command()
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
def doctor(form: str) -> None:
    """Check this installation, and explain what to do where it does not work."""
    checks = _checks()
    if form == "json":
        click.echo(json.dumps(checks, indent=2))
    else:
        for check in checks:
            click.echo(f"{'ok  ' if check['ok'] else 'FAIL'} {check['name']:14} {check['detail']}")
            if check["hint"]:
                click.echo(f"     {'':14} {check['hint']}")
    if not all(check["ok"] for check in checks):
        sys.exit(1)


def _check(name: str, ok: bool, detail: str, hint: str = "") -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "hint": hint}


def _checks() -> list[dict[str, Any]]:
    checks = [_check("python", sys.version_info >= (3, 11), sys.version.split()[0], "")]
    try:
        import torch

        checks.append(
            _check("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads")
        )
    except Exception as error:
        return [*checks, _check("torch", False, str(error), FIX_TORCH)]
    checks.append(_torchvision(torch.__version__))
    for name in ("timm", "sklearn", "pycocotools", "safetensors", "tokenizers"):
        try:
            module = __import__(name)
            checks.append(_check(name, True, str(getattr(module, "__version__", "installed"))))
        except Exception as error:
            checks.append(_check(name, False, str(error).splitlines()[0], f"pip install {name}"))
    from ecamp.ops._ext import kernel_notes, load_extension
    from ecamp.storage.files import cache_root

    notes = kernel_notes()
    native = load_extension()
    off = [] if native else ["switched off by ECAMP_DISABLE_EXT=1"]
    checks.append(_check("kernels", True, "native" if native else "reference", *(notes or off)))
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (CPU is enough)"
    checks.append(_check("gpu", True, device))
    root = cache_root()
    near = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(near).free / 2**30
    hint = "" if free > 2 else "make room: ecamp cache gc"
    checks.append(_check("cache", free > 2, f"{root}, {free:.0f} GiB free", hint))
    return checks


def _torchvision(torch_version: str) -> dict[str, Any]:
    """Check that torch and torchvision fit: CPU-only torch with a CUDA torchvision is the common trap."""
    try:
        import torchvision
    except Exception as error:
        text = str(error).splitlines()[0]
        if "nms" in text:
            text = f"does not fit torch {torch_version}: it was built for another build of torch"
        return _check("torchvision", False, text, FIX_TORCH)
    return _check("torchvision", True, str(torchvision.__version__))
