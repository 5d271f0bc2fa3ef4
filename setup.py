"""Package description; `ENTRY_POINTS` registers our plugins exactly as a third party would."""

from __future__ import annotations

from setuptools import find_packages, setup

ENTRY_POINTS = {
    "console_scripts": ["ecamp = ecamp.cli:main"],
    "ecamp.encoders": [
        "timm = ecamp.encoders.timm:TimmEncoder",
        "vit-micro = ecamp.encoders.timm:MicroViT",
    ],
    "ecamp.pretext": [
        "none = ecamp.pretext.none:NoPretext",
        "mae = ecamp.pretext.mae:MAE",
        "ecamp = ecamp.pretext.ecamp:ECAMP",
    ],
    "ecamp.datasets": [
        "phantom = ecamp.datasets.phantom:PhantomDataset",
        "folder = ecamp.datasets.folder:FolderDataset",
    ],
    "ecamp.tasks": [
        "cls = ecamp.tasks.classification:Classification",
        "seg = ecamp.tasks.segmentation:Segmentation",
        "det = ecamp.tasks.detection:Detection",
    ],
}

REQUIRES = [
    "click>=8.1",
    "jinja2>=3.1",
    "joblib>=1.4",
    "matplotlib>=3.9",
    "numpy>=2.0",
    "pillow>=11",
    "pycocotools>=2.0.8",
    "pydantic>=2.9",
    "pydicom>=3.0",
    "pyyaml>=6",
    "rich>=13",
    "safetensors>=0.5",
    "scikit-learn>=1.6",
    "stevedore>=5.4",
    "timm>=1.0.15",
    "tokenizers>=0.21",
    "torch>=2.11",
    "torchvision>=0.26",
    "transformers>=5.0",
]

DEVELOP = [
    "hypothesis>=6.100",
    "mypy>=1.15",
    "pytest>=8",
    "pytest-benchmark>=5",
    "pytest-timeout>=2.3",
    "ruff>=0.9",
    "types-PyYAML",
]

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
    extras_require={"dev": DEVELOP},
    entry_points=ENTRY_POINTS,
)
