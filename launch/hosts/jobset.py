"""Prints the JobSet that runs `launch.train` on Kubernetes; it touches no cluster.

python -m launch.hosts.jobset --name first --image IMAGE --volume-claim runs \\
    --topology v5p:4x4x4 -- tiny --train.steps 100 | kubectl apply -f -
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Sequence
from typing import Any, Literal

import yaml

from launch import cli, panels
from launch.hosts.check import check_options

RUNS = "/runs"
"""Mount point of the claim."""

TPUS = {
    "v4": ("tpu-v4-podslice", 3),
    "v5e": ("tpu-v5-lite-podslice", 2),
    "v5p": ("tpu-v5p-slice", 3),
    "v6e": ("tpu-v6e-slice", 2),
    "tpu7x": ("tpu7x", 3),
}
"""Kind of TPU → value of GKE's node label, and axes of its topologies."""

PORT = 55555  # of process 0 on GPU hosts; nothing else listens in its pod
MEMORY_LOCK = 68719476736  # kilobytes: libtpu locks what it sends


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSetArguments:
    """JobSet YAML for one TPU slice or for GPU machines. Options after `--` go to launch.train.

    A pod that is preempted or evicted saves and ends with status 75, and all pods start again
    without that being counted. Any other failure counts towards `max_restarts`.
    """

    name: str
    """Name of the JobSet; its run is in `/runs/NAME`."""
    image: str
    """Container image, built from launch/hosts/Dockerfile."""
    volume_claim: str
    """Claim (ReadWriteMany) of the volume that all pods see as `/runs`."""
    topology: str = ""
    """TPU slice, such as v5p:4x4x4. Empty: GPU machines."""
    chips: int = 4
    """TPU chips per machine."""
    gpus: int = 0
    """GPUs per machine."""
    hosts: int = 1
    """Number of GPU machines; for a TPU it follows from the topology."""
    node_label: tuple[str, ...] = ()
    """KEY=VALUE labels of the nodes, such as cloud.google.com/gke-accelerator=nvidia-h200-141gb."""
    spot: bool = False
    """Use GKE spot nodes, which may be preempted."""
    sandbox: Literal["landlock", "namespaces"] = "landlock"
    """Isolation of the tool. `landlock` is allowed in every cluster. `namespaces` removes the
    runtime's seccomp filter from the pod, and the policy's programs get files of their own to
    write."""
    user: int | None = None
    """User id of the pods. None: 0 for TPU, whose devices belong to root; 1000 for GPU."""
    max_restarts: int = 3
    """Number of failures, preemptions not counted, after which the JobSet fails."""
    grace_seconds: int = 300
    """Seconds from SIGTERM to SIGKILL: enough for one step and a save. Spot nodes give less."""
    check: bool = True
    """Check what follows `--` with the parser of launch.train on this machine."""


def jobset(arguments: JobSetArguments, train: Sequence[str]) -> dict[str, Any]:
    """The manifest; `train` holds preset and options of `launch.train`. Raises ValueError if they
    are bad.
    """
    _check(arguments, train)
    tpu = bool(arguments.topology)
    hosts, chips, labels = _slice(arguments) if tpu else (arguments.hosts, arguments.gpus, {})
    for label in arguments.node_label:
        key, equals, value = label.partition("=")
        if not (key and equals):
            raise ValueError(f"--node-label takes KEY=VALUE, not {label!r}")
        labels[key] = value
    resource = "google.com/tpu" if tpu else "nvidia.com/gpu"
    tolerations = [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}]
    if arguments.spot:
        spot = "cloud.google.com/gke-spot"
        labels[spot] = "true"
        tolerations.append(
            {"key": spot, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        )
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": arguments.grace_seconds,
        # Nothing in the pod is a key to the cluster.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _pod_security(arguments),
        **({"nodeSelector": labels} if labels else {}),
        "tolerations": tolerations,
        "containers": [_container(arguments, train, resource, hosts, chips)],
        "volumes": [
            {"name": "runs", "persistentVolumeClaim": {"claimName": arguments.volume_claim}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
        ],
    }
    metadata: dict[str, Any] = {"name": arguments.name}
    if tpu:  # the pods of a slice all go to the nodes of one slice
        metadata["annotations"] = {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": arguments.max_restarts,
                "restartStrategy": "BlockingRecreate",
                "rules": [
                    {
                        "name": "preempted",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {"name": "host", "replicas": 1, "template": {"spec": _job(hosts, pod)}}
            ],
        },
    }


def _job(hosts: int, pod: dict[str, Any]) -> dict[str, Any]:
    """One pod per machine. The first pod that fails ends the Job, and the JobSet decides what
    follows.
    """
    return {
        "completionMode": "Indexed",
        "completions": hosts,
        "parallelism": hosts,
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "train",
                        "operator": "In",
                        "values": [cli.EXIT_PREEMPTED],
                    },
                },
                {
                    "action": "FailJob",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
            ]
        },
        "template": {"spec": pod},
    }


def _container(
    arguments: JobSetArguments, train: Sequence[str], resource: str, hosts: int, chips: int
) -> dict[str, Any]:
    command = ["python", "-m", "launch.train", *train, "--run-dir", f"{RUNS}/{arguments.name}"]
    # Kubernetes would put variables in the place of $(NAME).
    command = [word.replace("$(", "$$(") for word in command]
    if not {"--resume", "--resume-if-any"} & set(train):
        command.append("--resume-if-any")
    capabilities: dict[str, list[str]] = {}
    environment = []
    if arguments.topology:
        command += ["--cluster", "auto"]
        command = ["sh", "-c", f'ulimit -l {MEMORY_LOCK} && exec "$@"', "train", *command]
        capabilities["add"] = ["SYS_RESOURCE"]
    else:
        # JAX would ask the cluster, for which a pod needs a key and one more package.
        command += ["--cluster", "none"] if hosts == 1 else _processes(arguments.name, hosts)
        environment.append(
            {"name": "JAX_LOCAL_DEVICE_IDS", "value": ",".join(map(str, range(chips)))}
        )
    if _user(arguments):
        capabilities["drop"] = ["ALL"]
    container: dict[str, Any] = {
        "name": "train",
        "image": arguments.image,
        "args": command,  # after the image's entry point, which hands signals on
        "resources": {"limits": {resource: chips}},
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [
            {"name": "runs", "mountPath": RUNS},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
    if capabilities:
        container["securityContext"]["capabilities"] = capabilities
    if environment:
        container["env"] = environment
    return container


def _processes(name: str, hosts: int) -> list[str]:
    coordinator = f"{name}-host-0-0.{name}:{PORT}"
    return [
        *("--distributed.coordinator", coordinator),
        *("--distributed.processes", str(hosts)),
        *("--distributed.process-id", "$(JOB_COMPLETION_INDEX)"),
    ]


def _user(arguments: JobSetArguments) -> int:
    if arguments.user is not None:
        return arguments.user
    return 0 if arguments.topology else 1000


def _pod_security(arguments: JobSetArguments) -> dict[str, Any]:
    user = _user(arguments)
    profile = {"landlock": "RuntimeDefault", "namespaces": "Unconfined"}[arguments.sandbox]
    security: dict[str, Any] = {"runAsUser": user, "seccompProfile": {"type": profile}}
    if user:
        security |= {"runAsNonRoot": True, "runAsGroup": user, "fsGroup": user}
    if arguments.sandbox == "namespaces":
        security["appArmorProfile"] = {"type": "Unconfined"}
    return security


def _slice(arguments: JobSetArguments) -> tuple[int, int, dict[str, str]]:
    """Machines of a TPU slice, chips of each, and labels of its nodes."""
    kind, _, shape = arguments.topology.partition(":")
    if kind not in TPUS:
        raise ValueError(f"--topology takes one of {', '.join(TPUS)}, then :, not {kind!r}")
    label, axes = TPUS[kind]
    if not re.fullmatch("x".join([r"[1-9]\d*"] * axes), shape):
        example = "x".join(["4"] * axes)
        raise ValueError(f"a topology of {kind} has {axes} axes, as in {kind}:{example}: {shape!r}")
    total = math.prod(map(int, shape.split("x")))
    chips = min(total, arguments.chips)
    if total % chips:
        raise ValueError(f"{total} chips are not divisible by --chips {chips} of a host")
    return (
        total // chips,
        chips,
        {
            "cloud.google.com/gke-tpu-accelerator": label,
            "cloud.google.com/gke-tpu-topology": shape,
        },
    )


def _check(arguments: JobSetArguments, train: Sequence[str]) -> None:
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", arguments.name):
        raise ValueError(
            f"--name takes up to 40 of a-z, 0-9 and -, with a letter first and no - last:"
            f" {arguments.name!r}"
        )
    if bool(arguments.topology) == bool(arguments.gpus):
        raise ValueError("give either --topology, for a TPU slice, or --gpus, for GPU hosts")
    if arguments.topology and arguments.hosts != 1:
        raise ValueError("--hosts is for --gpus; the hosts of a TPU follow from its topology")
    for option, value in (("chips", arguments.chips), ("hosts", arguments.hosts)):
        if value < 1:
            raise ValueError(f"--{option} takes a number above 0, not {value}")
    for option in ("gpus", "max_restarts", "grace_seconds"):
        value = getattr(arguments, option)
        if value < 0:
            raise ValueError(f"--{option.replace('_', '-')} takes no number below 0, not {value}")
    if any(word.split("=")[0] == "--run-dir" for word in train):
        raise ValueError(f"the run is in {RUNS}/{arguments.name}; leave out --run-dir")


def run(argv: Sequence[str]) -> None:
    words = list(argv)
    split = words.index("--") if "--" in words else len(words)
    arguments = panels.parse(
        JobSetArguments,
        words[:split],
        prog="python -m launch.hosts.jobset",
        description=JobSetArguments.__doc__,
    )
    train = words[split + 1 :]
    manifest = jobset(arguments, train)
    if arguments.check:
        check_options(train)
    yaml.safe_dump(manifest, sys.stdout, sort_keys=False, width=100)


if __name__ == "__main__":
    cli.main(run)
