"""Installs the POX component `edge.aggregator` as the package `edge`.

POX itself is a git checkout (https://github.com/noxrepo/pox, branch halosaur), not a package:
PyPI's `pox` is another project, so nothing here depends on it.
"""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """The requirement lines of a requirements file beside this one."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name="edge-aggregator",
    version="0.1.0",
    description="A POX component: many Open vSwitch switches look like one OpenFlow 1.0 switch",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="openflow sdn pox open-vswitch aggregation gre",
    package_dir={"": "pox_ext"},
    packages=find_packages("pox_ext"),
    package_data={"edge.web": ["static/*"]},
    python_requires=">=3.9,<3.13",
    extras_require={
        "prometheus": ["prometheus_client>=0.14,<1"],
        "test": requirements("requirements-test.txt"),
    },
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: System :: Networking",
    ],
)
