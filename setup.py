"""Package description; `ENTRY_POINTS` registers our plugins exactly as a third party would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ENTRY_POINTS = {
    "console_scripts": ["ecamp = ecamp.cli:main"],
    "ecamp.encoders": [
        "timm = ecamp.encoders.timm:TimmEncoder",
        "vit-micro = ecamp.encoders.timm:MicroViT",
        "hf-clip = ecamp.encoders.hf_clip:CLIPFolder",
    ],
    "ecamp.pretext": [
        "none = ecamp.pretext.none:NoPretext",
        "mae = ecamp.pretext.mae:MAE",
        "ecamp = ecamp.pretext.ecamp:ECAMP",
        "ecamp-published = ecamp.published.pretraining:PublishedECAMP",
        "mrm-like = ecamp.pretext.ecamp.presets:MRMLike",
        "ecamp-uniform-masking = ecamp.pretext.ecamp.presets:UniformMasking",
        "ecamp-no-rebalance = ecamp.pretext.ecamp.presets:NoRebalance",
        "ecamp-global-fusion = ecamp.pretext.ecamp.presets:GlobalFusion",
        "ecamp-fine-fusion = ecamp.pretext.ecamp.presets:FineFusion",
        "ecamp-no-text = ecamp.pretext.ecamp.presets:NoText",
        "ecamp-no-super-resolution = ecamp.pretext.ecamp.presets:NoSuperResolution",
        "ecamp-random-window = ecamp.pretext.ecamp.presets:RandomWindow",
        "ecamp-small-window = ecamp.pretext.ecamp.presets:SmallWindow",
        "ecamp-loss-on-all = ecamp.pretext.ecamp.presets:LossOnAll",
        "weights = ecamp.pretext.weights:WeightsFile",
    ],
    "ecamp.datasets": [
        "phantom = ecamp.datasets.phantom:PhantomDataset",
        "folder = ecamp.datasets.folder:FolderDataset",
        "packed = ecamp.datasets.packed:Packed",
        "mimic-cxr = ecamp.datasets.mimic_cxr:MimicCXR",
        "chestxray14 = ecamp.datasets.chestxray14:ChestXray14",
        "chexpert = ecamp.datasets.chexpert:CheXpert",
        "rsna = ecamp.datasets.rsna:RSNA",
        "siim = ecamp.datasets.siim:SIIM",
        "covidx = ecamp.datasets.covidx:COVIDx",
        "vindr-cxr = ecamp.datasets.vindr:VinDrCXR",
        "object-cxr = ecamp.datasets.object_cxr:ObjectCXR",
        "montgomery = ecamp.datasets.montgomery:Montgomery",
        "shenzhen = ecamp.datasets.shenzhen:Shenzhen",
        "jsrt = ecamp.datasets.jsrt:JSRT",
        "iu-xray = ecamp.datasets.iu_xray:IUXray",
        "covid-idc = ecamp.datasets.covid_idc:CovidIDC",
        "padchest = ecamp.datasets.padchest:PadChest",
        "medmnist = ecamp.datasets.medmnist:MedMNIST",
    ],
    "ecamp.tasks": [
        "cls = ecamp.tasks.classification:Classification",
        "seg = ecamp.tasks.segmentation:Segmentation",
        "det = ecamp.tasks.detection:Detection",
        "ret = ecamp.tasks.retrieval:Retrieval",
    ],
    "ecamp.distillers": [
        "consensus = ecamp.distill.consensus:Consensus",
        "published = ecamp.distill.published_answers:PublishedAnswers",
        "rules = ecamp.distill.rules:RulesDistiller",
        "llm = ecamp.distill.llm:LLMDistiller",
        "transformers = ecamp.distill.local:LocalDistiller",
    ],
}

REQUIRES = [
    "click>=8.1",
    "filelock>=3.15",
    "httpx2>=2.10",
    "jinja2>=3.1",
    "joblib>=1.4",
    "matplotlib>=3.9",
    "numpy>=2.0",
    "pillow>=11",
    "pycocotools>=2.0.8",
    "pydantic>=2.9",
    "pydicom>=3.0",
    "pyyaml>=6",
    "safetensors>=0.5",
    "scikit-learn>=1.6",
    "scipy>=1.13",
    "stevedore>=5.4",
    "timm>=1.0.15",
    "threadpoolctl>=3.5",
    "tokenizers>=0.21",
    "torch>=2.11",
    "torchvision>=0.26",
    "transformers>=5.0",
]

PARQUET = ["pyarrow>=16"]
# JPEG-LS, lossless JPEG and JPEG 2000 within DICOM (BSD). Lossy JPEG of 12 bit is read by
# pylibjpeg-libjpeg alone, which is GPL-3.0 and therefore the user's own choice.
DICOM = ["python-gdcm>=3.0.24"]

DEVELOP = [
    *PARQUET,
    *DICOM,
    "hypothesis>=6.100",
    "mypy>=1.15",
    "pandas>=2.2",
    "pytest>=8",
    "pytest-benchmark>=5",
    "pytest-timeout>=2.3",
    "ruff>=0.9",
    "types-PyYAML",
]


class CMakeBuild(build_ext):
    """Builds `ecamp/_C.so` with CMake and ninja against the installed torch.

    ECAMP_EXT=auto (default) installs without kernels, and says so, where they cannot be built;
    `require` fails instead, `off` does not try. ECAMP_CUDA=auto|on|off, ECAMP_CUDA_ARCHS.
    """

    def get_ext_filename(self, fullname: str) -> str:
        # Stable ABI, loaded by torch and not by Python: one name on every Python version.
        return str(Path(*fullname.split("."))) + ".so"

    def run(self) -> None:
        wanted = os.environ.get("ECAMP_EXT", "auto")
        if wanted == "off":
            self.extensions = []
            return
        try:
            self.build()
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            if wanted == "require":
                raise SystemExit(f"ecamp: kernels cannot be built: {error}") from error
            print(f"ecamp: WARNING: installing without kernels: {error}", file=sys.stderr)
            self.extensions = []  # nothing to copy or to list as output

    def build(self) -> None:
        torch = find_spec("torch")
        if torch is None or torch.origin is None:
            raise RuntimeError("no torch here; install it first, then use --no-build-isolation")
        for tool in ("cmake", "ninja"):
            if not _tool(tool):
                raise RuntimeError(f"no {tool}; pip install {tool}")
        home, root = Path(torch.origin).parent, Path(__file__).resolve().parent
        folder = root / "build" / "cmake"
        cuda = os.environ.get("ECAMP_CUDA", "auto")
        with_cuda = cuda == "on" or (cuda == "auto" and shutil.which("nvcc") is not None)
        archs = os.environ.get("ECAMP_CUDA_ARCHS", "80-real;90")
        subprocess.run(
            [
                _tool("cmake"), "-S", str(root), "-B", str(folder), "-G", "Ninja", "--fresh",
                f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
                f"-DECAMP_TORCH_INCLUDE={home / 'include'}",
                f"-DECAMP_TORCH_LIB={home / 'lib'}",
                f"-DECAMP_WITH_CUDA={'ON' if with_cuda else 'OFF'}",
                f"-DCMAKE_CUDA_ARCHITECTURES={archs}",
            ],
            check=True,
        )  # fmt: skip
        subprocess.run([_tool("cmake"), "--build", str(folder)], check=True)
        target = Path(self.get_ext_fullpath("ecamp._C"))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "_C.so", target)


def _tool(name: str) -> str:
    """A build tool of this environment, else of the machine; empty when there is none."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name) or ""


setup(
    name="ecamp",
    version="0.1.0",
    description="Does this medical vision-language pre-training help, and can the number be trusted?",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["ecamp", "ecamp.*"]),
    package_data={"ecamp": ["py.typed", "**/*.yaml", "**/*.j2", "**/*.css", "**/*.so"]},
    install_requires=REQUIRES,
    extras_require={"dev": DEVELOP, "parquet": PARQUET, "dicom": DICOM},
    entry_points=ENTRY_POINTS,
    ext_modules=[Extension("ecamp._C", [], optional=True)],
    cmdclass={"build_ext": CMakeBuild},
)
