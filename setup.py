"""Packaging of recbole_sigrec. The tool settings (ruff, pytest) are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Read ``__version__`` without importing the package (its imports need torch and RecBole)."""
    text = (ROOT / "recbole_sigrec" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r"^__version__\s*=\s*[\"']([^\"']+)[\"']", text, re.MULTILINE)
    if match is None:
        raise RuntimeError("recbole_sigrec/__init__.py defines no __version__")
    return match.group(1)


def read_readme() -> str:
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


INSTALL_REQUIRES = [
    # RecBole 1.2.1 requires ray <= 2.6.3, which has no build for Python >= 3.12, so there pip
    # cannot resolve it. On those versions it is installed on its own, without its dependencies:
    #     pip install --no-deps recbole==1.2.1
    # What the parts of RecBole that we use import at run time is therefore listed below, next to
    # what we import ourselves. ray, thop, plotly and tabulate are not among them.
    'recbole==1.2.1; python_version < "3.12"',
    "torch>=2.4,<3",  # 2.4: fused Adam on the CPU
    "numpy>=1.26,<3",
    "scipy>=1.11,<2",
    "pandas>=2.0,<3",  # 3: RecBole's chained fillna(inplace=True) silently does nothing
    "scikit-learn>=1.3,<2",
    "pyyaml>=6.0,<7",
    "pydantic>=2.6,<3",
    "safetensors>=0.4,<1",
    "tqdm>=4.64,<5",
    "filelock>=3.12,<5",
    # Imported by RecBole alone.
    "colorama>=0.4.4,<1",
    "colorlog>=4.7.2,<7",
    "psutil>=5.9,<8",
    "tensorboard>=2.17,<3",  # 2.17: NumPy 2
    "texttable>=1.6.7,<2",
]

PARQUET = ["pyarrow>=14,<27"]
FAISS = ["faiss-cpu>=1.8,<2"]
REPORT = ["plotly>=5.18,<8", "statsmodels>=0.14,<1"]
TUNE = ["optuna>=3.5,<6"]
TEST = ["pytest>=8,<10", "hypothesis>=6.100,<7"]

EXTRAS_REQUIRE = {
    "text": ["sentence-transformers>=3,<7"],
    "image": ["timm>=1.0.16,<2", "pillow>=10"],
    "faiss": FAISS,
    "report": REPORT,
    "parquet": PARQUET,
    "tune": TUNE,
    "test": TEST,
    "dev": [
        *(*TEST, *FAISS, *REPORT, *PARQUET, *TUNE),
        *("ruff>=0.6,<1", "build>=1.2,<2", "pytest-benchmark>=4,<6"),
    ],
}

setup(
    name="recbole_sigrec",
    version=read_version(),
    description=(
        "Multimodal recommendation for RecBole: semantic item graphs infused with "
        "collaborative signals"
    ),
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    author="recbole_sigrec contributors",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    keywords="recommender-systems recbole multimodal graph-neural-network pytorch",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["recbole_sigrec", "recbole_sigrec.*"]),
        # The configuration files lie in properties/ and are packed inside the package.
        "recbole_sigrec.properties",
    ],
    package_dir={"recbole_sigrec.properties": "properties"},
    package_data={"recbole_sigrec.properties": ["*.yaml", "model/*.yaml", "dataset/*.yaml"]},
    include_package_data=False,
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["recbole-sigrec = recbole_sigrec.cli:main"]},
    zip_safe=False,
)
