"""Java programs for the tests: Maven resolves the artifacts and compiles tests/java, once, into a cache of its own."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2] / "java"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:build-classpath"


class JavaMissing(Exception):
    """Java or Maven is not installed, or the artifacts can't be had."""


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "sluice-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def installed() -> bool:
    return shutil.which("java") is not None and shutil.which("mvn") is not None


def classpath(module: str = "kafka") -> str:
    """The class path of a module of tests/java with all it needs and its own compiled classes; cached by content."""
    if not installed():
        raise JavaMissing("java and mvn are not installed")
    project = PROJECT / module
    sources = sorted((project / "src").rglob("*.java"))
    digest = hashlib.sha256((project / "pom.xml").read_bytes())
    artifacts = cache() / f"{module}-{digest.hexdigest()[:16]}.classpath"
    for source in sources:
        digest.update(source.name.encode() + source.read_bytes())
    classes = cache() / f"{module}-{digest.hexdigest()[:16]}.classes"
    with open(cache() / f"{module}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not artifacts.exists() or not all(Path(p).exists() for p in artifacts.read_text().split(":")):
            _resolve(project, artifacts)
        if sources and not classes.exists():
            _compile(sources, artifacts.read_text().strip(), classes)
    return f"{classes}:{artifacts.read_text().strip()}"


def _resolve(project: Path, artifacts: Path) -> None:
    target = artifacts.with_suffix(".new")
    command = ["mvn", "-q", "-B", "-f", str(project / "pom.xml"), PLUGIN, f"-Dmdep.outputFile={target}"]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if outcome.returncode or not target.exists():
        raise JavaMissing(f"Maven could not resolve {project}: {outcome.stdout[-2000:]}")
    target.rename(artifacts)


def _compile(sources: list[Path], path: str, classes: Path) -> None:
    building = classes.with_suffix(".new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    command = ["javac", "-nowarn", "-proc:none", "--release", "17", "-cp", path, "-d", str(building)]
    outcome = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True, timeout=300, check=False)
    if outcome.returncode:
        raise AssertionError(f"javac: {outcome.stderr[-4000:]}")
    building.rename(classes)


def command(main: str, *arguments: str, module: str = "kafka", heap: str = "96m") -> list[str]:
    """The command that runs a main class of tests/java."""
    options = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
    options.append("-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
    return ["java", *options, "-cp", classpath(module), main, *arguments]
