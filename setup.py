"""What pyproject.toml cannot say: properties/ is packed as recbole_sigrec.properties."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["recbole_sigrec", "recbole_sigrec.*"]),
        "recbole_sigrec.properties",
    ],
    package_dir={"recbole_sigrec.properties": "properties"},
    package_data={
        "recbole_sigrec": ["py.typed"],
        "recbole_sigrec.display": ["style.css"],
        "recbole_sigrec.service": ["page/*"],
        "recbole_sigrec.properties": ["*.yaml", "model/*.yaml", "dataset/*.yaml"],
    },
    include_package_data=False,
)
