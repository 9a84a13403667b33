"""Nodes that run what is bound to them, clients that ask, and operators that look after it all, in simulated time."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from wan22_operator.budget import CLAIMS, Budget
from wan22_operator.builders.pod import worker_name
from wan22_operator.caches import Caches
from wan22_operator.cluster import ApiFailure, Object
from wan22_operator.memory import Memory
from wan22_operator.metrics import Metrics
from wan22_operator.models import Resolved
from wan22_operator.names import POOL, PoolKey, ordinal_of
from wan22_operator.nodes import Nodes
from wan22_operator.observed import Sources
from wan22_operator.pods import Pods
from wan22_operator.reconcile import Reconciler
from wan22_operator.recorder import Recorder
from wan22_operator.resources import CONFIG_MAP, NODE, POD, WAN_POOL
from wan22_operator.settings import OperatorSettings
from wan22_operator.times import seconds_of, text_of
from wan22_testing.operator_world.faults import Faults, Killed
from wan22_testing.operator_world.memory_cluster import MemoryCluster
from wan22_testing.operator_world.memory_gateway import MemoryGateway, Row, States, Work

NAMESPACE = "videos"
RIVAL_PAUSES = (0.0, 1.0, 5.0)
NODES, GPUS_A_NODE = 3, 3
BUDGET, MOST_A_POOL = 6, 4
START_SECONDS, LOAD_SECONDS = 1.0, 5.0
LEASE_SECONDS, NOT_READY_SECONDS = 5.0, 8.0
"""How long after a node's death its workers are dead to the gateway, and it is NotReady."""
VERSION = f"models/wan2.2-t2v-a14b/versions/sha256:{'1' * 64}"


@dataclass(slots=True)
class _Process:
    """A worker that runs."""

    pod: str
    uid: str
    node: str
    began: float


class _Models:
    """A registry that always answers."""

    async def resolve(self, _reference: str, _precision: str | None = None) -> Resolved:
        return Resolved(VERSION, "t2v-a14b", 70 << 30)


class Life:
    """One operator process, from its start to its end: what it remembers goes with it."""

    def __init__(self, world: World, identity: str) -> None:
        settings = OperatorSettings(worker_image="worker:1", gpu_budget=BUDGET, identity=identity)
        nodes, pods = Nodes(world.cluster), Pods(world.cluster, (), lambda _: None)
        sources = Sources(
            world.cluster,
            world.gateway,
            _Models(),  # type: ignore[arg-type]  # answers as a registry's client does
            pods,
            nodes,
            Caches(world.cluster, None),
            settings,
        )
        budget = Budget(world.cluster, settings)
        self._nodes, self._pods = nodes, pods
        self._reconciler = Reconciler(sources, Recorder(world.cluster, identity), Metrics(), budget)
        self._memory: dict[PoolKey, Memory] = {}

    async def round(self, key: PoolKey) -> None:
        """One round of one pool. Raises ApiFailure; Killed."""
        self._nodes.forget()
        await self._pods.reflectors[None].step()
        memory = self._memory.setdefault(key, Memory())
        try:
            await self._reconciler.reconcile(key, memory)
        except ApiFailure:
            memory.children_due = True
            raise


class World:
    """Two pools that share a GPU budget; `wrong` fills with all that must not happen."""

    def __init__(self, rng: random.Random, share: float) -> None:
        self.now = 1_800_000_000.0
        self.rng = rng
        self.wrong: list[str] = []
        self.work: list[Work] = []
        self.rounds = self.failed_rounds = 0
        self.rate = 0.0
        """Generations a second that clients ask for."""
        self.cluster = MemoryCluster(self.clock, self._told_to_end)
        self.gateway = MemoryGateway(self.clock)
        self.faults = Faults(rng, 0.0, pass_time=self.pass_time, rival=self._rival)
        self.cluster.faults = self.gateway.faults = self.faults
        self.keys = [PoolKey(NAMESPACE, name) for name in ("first", "second")]
        self._processes: dict[str, _Process] = {}
        self._dead_since: dict[str, float] = {}
        self._was_lost: set[str] = set()
        self._in_rival = False
        for number in range(NODES):
            self.cluster.put_new(NODE, {"metadata": {"name": f"node-{number}"}, "spec": {}, "status": _ready("True")})
        for key in self.keys:
            self.cluster.put_new(WAN_POOL, _pool(key))
        self._life, self._other = Life(self, "operator"), Life(self, "rival")
        self.faults.share = share

    def clock(self) -> float:
        """Seconds since the epoch."""
        return self.now

    async def round(self) -> None:
        """The operator looks at a pool, and whatever happens to it happens; a killed one is followed by a new one."""
        self.rounds += 1
        try:
            await self._life.round(self.rng.choice(self.keys))
        except ApiFailure:
            self.failed_rounds += 1
        except Killed:
            self._life = Life(self, "operator")

    def kill_node(self) -> None:
        """One at a time."""
        if not self._dead_since:
            self._dead_since[f"node-{self.rng.randrange(NODES)}"] = self.now

    def restore_nodes(self) -> None:
        """All run again; their kubelets end what was deleted meanwhile, and start the rest anew."""
        for node in self._dead_since:
            self._processes = {uid: one for uid, one in self._processes.items() if one.node != node}
        self._dead_since.clear()

    def crash_worker(self) -> None:
        """A worker's process ends by itself, and its pod with it."""
        pods = [pod for pod in self.cluster.all(POD) if pod["metadata"]["uid"] in self._processes]
        if pods:
            pod = self.rng.choice(pods)
            pod["status"]["phase"] = "Failed"
            self._ended(pod)
            self.cluster.changed(pod)

    def pass_time(self, seconds: float) -> None:
        """Whatever happens within so many seconds, in steps of one at most."""
        while seconds > 0:
            self.now += min(seconds, 1.0)
            seconds -= 1.0
            if self.rng.random() < self.rate:
                self._ask()
            self._nodes_seen()
            for pod in list(self.cluster.all(POD)):
                self._kubelet(pod)
            self.gateway.dispatch()
            self._check()

    def _ask(self) -> None:
        """A client wants a video of a pool that the gateway knows."""
        known = [key.pool for key in self.keys if key.pool in self.gateway.pools]
        if known:
            self.work.append(self.gateway.ask(self.rng.choice(known), self.rng.uniform(2.0, 20.0)))

    async def _rival(self, rounds: int) -> None:
        """Rounds of an operator that should not be there: its Lease was lost, and it does not know.

        Before each but the first there is something new for it to do, so that what was read before them is old.
        """
        if self._in_rival:
            return
        self._in_rival = True
        for number in range(rounds):
            if number:
                self._ask()
                self.pass_time(self.rng.choice(RIVAL_PAUSES))
            try:
                await self._other.round(self.rng.choice(self.keys))
            except ApiFailure:
                pass  # as with any round: the next one begins anew
            except Killed:
                self._other = Life(self, "rival")
        self._in_rival = False

    def _nodes_seen(self) -> None:
        for node in self.cluster.all(NODE):
            died = self._dead_since.get(node["metadata"]["name"])
            status = _ready("True" if died is None or self.now - died < NOT_READY_SECONDS else "Unknown")
            if node["status"] != status:
                node["status"] = status
                self.cluster.changed(node)

    def _kubelet(self, pod: Object) -> None:
        """The scheduler's and the kubelet's part in a pod's life."""
        meta, status = pod["metadata"], pod.setdefault("status", {"phase": "Pending"})
        node = pod["spec"].get("nodeName")
        if node is None:
            if "deletionTimestamp" in meta:
                self.cluster.drop(pod)
            else:
                self._schedule(pod)
            return
        died = self._dead_since.get(node)
        row = self.gateway.rows.get(worker_name(PoolKey.of_part(pod), meta["name"]))
        if died is not None:
            self._was_lost.add(meta["uid"])
            if row is not None and row.alive and self.now - died > LEASE_SECONDS:
                self.gateway.lose(row)
            return
        process = self._processes.get(meta["uid"])
        if "deletionTimestamp" in meta and (row is None or row.work is None or not row.alive):
            self._ended(pod)
            self.cluster.drop(pod)
        elif status["phase"] != "Failed" and process is None:
            self._processes[meta["uid"]] = _Process(meta["name"], meta["uid"], node, self.now)
            status["phase"] = "Running"
            self.cluster.changed(pod)
        elif process is not None:
            self._loads(pod, process, row)

    def _schedule(self, pod: Object) -> None:
        used = [one["spec"].get("nodeName") for one in self.cluster.all(POD)]
        free = [
            name
            for number in range(NODES)
            if (name := f"node-{number}") not in self._dead_since and used.count(name) < GPUS_A_NODE
        ]
        condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": text_of(self.now)}
        if free:
            pod["spec"]["nodeName"] = min(free, key=used.count)
        else:
            condition |= {"status": "False", "reason": "Unschedulable", "message": "no node has a GPU free"}
        pod["status"] = {"phase": "Pending", "conditions": [condition]}
        self.cluster.changed(pod)

    def _loads(self, pod: Object, process: _Process, row: Row | None) -> None:
        """Its process answers after a while, and is ready after a load."""
        key, age = PoolKey.of_part(pod), self.now - process.began
        name = worker_name(key, process.pod)
        if age < START_SECONDS or key.pool not in self.gateway.pools:
            return
        if row is None or row.uid != process.uid or not row.alive:
            row = self.gateway.rows[name] = Row(name, process.uid, key.pool)
        row.bytes_left = max(0, round(1e9 * (1 - (age - START_SECONDS) / LOAD_SECONDS)))
        if row.state == States.LOADING and not row.bytes_left:
            row.state = States.IDLE

    def _ended(self, pod: Object) -> None:
        row = self.gateway.rows.get(worker_name(PoolKey.of_part(pod), pod["metadata"]["name"]))
        if row is not None and row.uid == pod["metadata"]["uid"]:
            self.gateway.lose(row)
        self._processes.pop(pod["metadata"]["uid"], None)

    def _told_to_end(self, pod: Object) -> None:
        """Nobody but a worker on a lost node may be taken from its generation."""
        row = self.gateway.rows.get(worker_name(PoolKey.of_part(pod), pod["metadata"]["name"]))
        if row is not None and row.work is not None and row.alive:
            self.wrong.append(f"{row.name} was deleted while it worked")

    def _check(self) -> None:
        """What must hold at every moment."""
        alive = [pod for pod in self.cluster.all(POD) if pod["metadata"]["uid"] not in self._was_lost]
        if len(alive) > BUDGET:
            self.wrong.append(f"{len(alive)} GPUs are in use, of a budget of {BUDGET}")
        for key in self.keys:
            mine = [pod for pod in alive if pod["metadata"]["labels"][POOL] == key.name]
            if len(mine) > MOST_A_POOL:
                self.wrong.append(f"{key} has {len(mine)} workers, of {MOST_A_POOL} at most")
        self.wrong += [f"{name} was used twice" for name in self.cluster.twice]
        self._check_writes(alive)

    def _check_writes(self, alive: list[Object]) -> None:
        """What was recorded before it was acted on is recorded still: nobody has written over it."""
        budget = next(self.cluster.all(CONFIG_MAP), None)
        claims = {} if budget is None else json.loads(budget["data"][CLAIMS])
        for pool in self.cluster.all(WAN_POOL):
            key = PoolKey(NAMESPACE, pool["metadata"]["name"])
            mine = [pod for pod in alive if pod["metadata"]["labels"][POOL] == key.name]
            claimed = claims.get(str(key), {"gpus": 0})["gpus"]
            if len(mine) > claimed:
                self.wrong.append(f"{key} has {len(mine)} workers, and has claimed {claimed}")
            last = max((ordinal_of(pod["metadata"]["name"]) or 0 for pod in mine), default=-1)
            if last >= pool.get("status", {}).get("nextOrdinal", 0):
                self.wrong.append(f"{key} has worker {last}, and its status would use that number again")

    def set_minimum(self, minimum: int) -> None:
        """Somebody changes the spec of all pools."""
        for pool in self.cluster.all(WAN_POOL):
            pool["spec"]["scaling"]["minReplicas"] = minimum
            pool["metadata"]["generation"] += 1
            self.cluster.changed(pool)

    def statuses(self) -> list[dict[str, Any]]:
        """Of the pools, with their resourceVersions."""
        return [
            {"resourceVersion": pool["metadata"]["resourceVersion"], **pool.get("status", {})}
            for pool in self.cluster.all(WAN_POOL)
        ]

    def age_of_oldest(self) -> float:
        """Seconds since the oldest pod was made; 0 without one."""
        made = [seconds_of(pod["metadata"]["creationTimestamp"]) for pod in self.cluster.all(POD)]
        return self.now - min(made, default=self.now)


def _ready(value: str) -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": value}], "allocatable": {"nvidia.com/gpu": str(GPUS_A_NODE)}}


def _pool(key: PoolKey) -> Object:
    scaling = {"maxReplicas": MOST_A_POOL, "minReplicas": 0, "idleHoldSeconds": 0, "objectiveSeconds": 20}
    return {
        "apiVersion": WAN_POOL.api_version,
        "metadata": {"name": key.name, "namespace": key.namespace, "generation": 1},
        "spec": {"model": "wan2.2-t2v-a14b", "scaling": scaling},
    }
