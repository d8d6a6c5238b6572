"""The manifest for Kubernetes: its schema, and the shapes of slices."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.launch.hosts import OPTIONS, SHAPES, cli_preempted, job_of, manifest, pod_of, rendered

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the fakes are those of a Linux host"),
]

FIELDS = {  # of jobset.x-k8s.io/v1alpha2, those that are used; a tuple: one of these
    "apiVersion": ("jobset.x-k8s.io/v1alpha2",),
    "kind": ("JobSet",),
    "metadata": {"name": str, "annotations": dict},
    "spec": {
        "network": {"enableDNSHostnames": bool, "publishNotReadyAddresses": bool},
        "failurePolicy": {
            "maxRestarts": int,
            "restartStrategy": ("Recreate", "BlockingRecreate"),
            "rules": [
                {
                    "name": str,
                    "action": (
                        "FailJobSet",
                        "RestartJobSet",
                        "RestartJobSetAndIgnoreMaxRestarts",
                    ),
                    "onJobFailureReasons": [
                        (
                            "BackoffLimitExceeded",
                            "DeadlineExceeded",
                            "FailedIndexes",
                            "MaxFailedIndexesExceeded",
                            "PodFailurePolicy",
                        )
                    ],
                }
            ],
        },
        "replicatedJobs": [{"name": str, "replicas": int, "template": dict}],
    },
}


def misfits(value: object, schema: object, at: str = "") -> list[str]:
    """Places where a manifest differs from the description of its fields."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [at]
        return [
            miss
            for key, part in value.items()
            for miss in (
                misfits(part, schema[key], f"{at}.{key}") if key in schema else [f"{at}.{key}"]
            )
        ]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [at]
        return [m for i, part in enumerate(value) for m in misfits(part, schema[0], f"{at}[{i}]")]
    if isinstance(schema, tuple):
        return [] if value in schema else [at]
    return [] if type(value) is schema else [at]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_manifest_is_a_jobset(shape):
    found = manifest(*shape)
    assert misfits(found, FIELDS) == []
    broken = found | {"spec": found["spec"] | {"replicas": 1}}
    assert misfits(broken, FIELDS) == [".spec.replicas"]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_its_job_has_the_schema_of_kubernetes(shape):
    schemas = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate, of the extra `test`, is not there"
    )
    found = manifest(*shape)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": found["metadata"]}
    schemas.validate(job | {"spec": job_of(found)}, "1.31", strict=True)
    wrong = job | {"spec": job_of(found) | {"backoffLimits": 0}}
    with pytest.raises(schemas.ValidationError):
        schemas.validate(wrong, "1.31", strict=True)


def test_a_preemption_is_not_counted_and_all_pods_start_anew():
    found = manifest(*SHAPES["tpu"], "--max-restarts", "5")
    job, policy = job_of(found), found["spec"]["failurePolicy"]
    statuses, evicted = job["podFailurePolicy"]["rules"]
    assert statuses["onExitCodes"]["values"] == [cli_preempted()]
    assert statuses["onExitCodes"]["containerName"] == pod_of(found)["containers"][0]["name"]
    assert evicted["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert {statuses["action"], evicted["action"]} == {"FailJob"}, "a pod alone cannot go on"
    (rule,) = policy["rules"]
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert policy["maxRestarts"] == 5 and job["backoffLimit"] == 0
    assert pod_of(found)["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("topology", "hosts", "chips", "label"),
    [
        ("v5p:4x4x4", 16, 4, "tpu-v5p-slice"),
        ("v5e:4x8", 8, 4, "tpu-v5-lite-podslice"),
        ("v6e:1x1", 1, 1, "tpu-v6e-slice"),
        ("tpu7x:2x2x1", 1, 4, "tpu7x"),
    ],
)
def test_hosts_of_a_slice_follow_from_its_topology(topology, hosts, chips, label):
    found = manifest("--topology", topology)
    job, pod = job_of(found), pod_of(found)
    assert job["completions"] == job["parallelism"] == hosts
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": topology.partition(":")[2],
    }


def test_gpu_processes_find_the_first_by_its_name_in_the_network_of_the_jobset():
    found = manifest(*SHAPES["gpus"])
    args = pod_of(found)["containers"][0]["args"]
    (job,) = found["spec"]["replicatedJobs"]
    first = f"{found['metadata']['name']}-{job['name']}-0-0.{found['metadata']['name']}"
    at = args.index("--distributed.coordinator")
    assert args[at + 1].rpartition(":")[0] == first
    assert args[args.index("--distributed.processes") + 1] == "2"
    assert args[args.index("--distributed.process-id") + 1] == "$(JOB_COMPLETION_INDEX)"
    assert found["spec"]["network"]["enableDNSHostnames"]
    assert job_of(found)["completionMode"] == "Indexed", "it sets the index"


def test_options_reach_the_pod_as_they_are():
    args = rendered("--gpus", "8", "--no-check", train=(*OPTIONS, "$(HOME)"))
    assert args[3 : 3 + len(OPTIONS)] == OPTIONS
    assert args[3 + len(OPTIONS)] == "$$(HOME)", "Kubernetes would put a variable there"
    shell = rendered("--topology", "v6e:1x1", train=tuple(OPTIONS))
    assert shell[:2] == ["sh", "-c"] and shell[2].endswith('exec "$@"')
    script = shell[2].replace("ulimit -l 68719476736", "true").replace("exec", "printf '%s\\n'")
    echoed = subprocess.check_output(["sh", "-c", script, *shell[3:]], text=True, encoding="utf-8")
    assert echoed.splitlines() == shell[4:]


def test_pods_give_the_tools_sandbox_what_it_needs():
    """Landlock and seccomp work under the filter of the runtime; namespaces do not."""
    for shape, user in ((SHAPES["tpu"], 0), (SHAPES["gpus"], 1000)):
        pod = pod_of(manifest(*shape))
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["securityContext"]["runAsUser"] == user
        container = pod["containers"][0]["securityContext"]
        assert container["allowPrivilegeEscalation"] is False and "privileged" not in container
        assert pod["automountServiceAccountToken"] is False
        open_pod = pod_of(manifest(*shape, "--sandbox", "namespaces"))["securityContext"]
        assert open_pod["seccompProfile"] == open_pod["appArmorProfile"] == {"type": "Unconfined"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "either --topology"),
        (("--gpus", "8", "--topology", "v5p:2x2x1"), "either --topology"),
        (("--topology", "v9:2x2"), "one of v4"),
        (("--topology", "v5p:4x4"), "3 axes"),
        (("--topology", "v6e:3x3"), "not divisible"),
        (("--topology", "v6e:4x4", "--hosts", "2"), "--hosts is for --gpus"),
        (("--gpus", "8", "--hosts", "0"), "--hosts takes"),
        (("--gpus", "8", "--node-label", "h200"), "KEY=VALUE"),
        (("--gpus", "8", "--name", "No_Name"), "--name takes"),
        (("--gpus", "8", "--grace-second", "1"), "--grace-seconds"),
        (("--gpus", "8", "--max-restarts", "-1"), "--max-restarts takes"),
    ],
)
def test_bad_shapes_are_one_line(options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        manifest(*options)
    assert "\n" not in str(error.value)


def test_the_run_folder_is_the_claims():
    with pytest.raises(ValueError, match="leave out --run-dir"):
        manifest("--gpus", "8", train=("tiny", "--run-dir", "/elsewhere"))
