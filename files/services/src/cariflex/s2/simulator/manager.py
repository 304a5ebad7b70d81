"""The resource manager of one simulated device: connects, describes it, follows instructions at their time."""

import asyncio
import logging
import ssl
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp
from s2python.common import (
    Commodity,
    CommodityQuantity,
    ControlType,
    Duration,
    EnergyManagementRole,
    Handshake,
    InstructionStatus,
    InstructionStatusUpdate,
    NumberRange,
    PowerMeasurement,
    PowerRange,
    PowerValue,
    ResourceManagerDetails,
    Role,
    RoleType,
)
from s2python.frbc import (
    FRBCActuatorDescription,
    FRBCActuatorStatus,
    FRBCFillLevelTargetProfile,
    FRBCFillLevelTargetProfileElement,
    FRBCInstruction,
    FRBCLeakageBehaviour,
    FRBCLeakageBehaviourElement,
    FRBCOperationMode,
    FRBCOperationModeElement,
    FRBCStorageDescription,
    FRBCStorageStatus,
    FRBCSystemDescription,
    FRBCUsageForecast,
    FRBCUsageForecastElement,
)

from cariflex.s2.door import HEARTBEAT_SECONDS, Door
from cariflex.s2.mapping import Range, factor_to_power, power_to_factor
from cariflex.s2.simulator.physics import DEPARTURE_LEVEL, Ev, Machine
from cariflex.s2.wire import MAX_MESSAGE_BYTES, VERSION, RefusedError, Status, new_id

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
_POWER = CommodityQuantity.ELECTRIC_POWER_3_PHASE_SYMMETRIC
_FRBC = ControlType.FILL_RATE_BASED_CONTROL
_DAY, _QUARTER = 86_400_000, 900_000  # ms


class Manager:
    """Lives as long as the device; connections come and go.

    Attributes:
        machine: the device.
        door: the connection, None without one.
        controlled: the CEM has selected FRBC.
    """

    def __init__(
        self,
        name: str,
        machine: Machine,
        clock: Callable[[], datetime],
        step_seconds: float = 1.0,
        report_seconds: float = 10.0,
        tls: ssl.SSLContext | bool = True,
    ) -> None:
        """`clock` gives the site's time for the daily round; the state is stepped and reported at these intervals.

        `tls` says whom to trust where the CEM's address is wss; True: the system's authorities.
        """
        self.name = name
        self.machine = machine
        self.door: Door | None = None
        self.controlled = False
        self._clock = clock
        self._step_seconds = step_seconds
        self._report_seconds = report_seconds
        self._tls = tls
        # the same ids after each restart, so that the CEM knows the device again
        self._resource, self._actuator, self._mode = (
            uuid.uuid5(uuid.NAMESPACE_URL, f"s2:{name}:{part}") for part in ("resource", "actuator", "mode")
        )
        self._own_kw = machine.own_power(clock())
        machine.storage.set_power(self._own_kw)
        self._waiting: dict[Any, asyncio.Task[None]] = {}

    # --- connection ----------------------------------------------------------------------------------------------

    async def run(self, url: str, token: str) -> None:
        """Live, and stay connected, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._live())
            tasks.create_task(self._stay_connected(url, token))

    async def _stay_connected(self, url: str, token: str) -> None:
        pause = FIRST_PAUSE_SECONDS
        headers = {"Authorization": f"Bearer {token}"}
        while True:
            try:
                async with (
                    aiohttp.ClientSession(headers=headers) as http,
                    http.ws_connect(
                        url, heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES, ssl=self._tls
                    ) as socket,
                ):
                    pause = FIRST_PAUSE_SECONDS
                    await self._converse(Door(socket, self.name))
                reason = "the connection ended"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            log.warning("not connected", extra={"resource": self.name, "reason": reason, "again_in_seconds": pause})
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _converse(self, door: Door) -> None:
        self.door = door
        try:
            await door.send(
                Handshake(message_id=new_id(), role=EnergyManagementRole.RM, supported_protocol_versions=[VERSION])
            )
            await door.listen(self._handle, self._refused)
        finally:
            self.door = None
            self.controlled = False

    def _refused(self, sent: Any, reason: str) -> None:
        log.error(
            "the CEM refused a message",
            extra={"resource": self.name, "message_type": sent.message_type, "reason": reason},
        )

    async def _handle(self, message: Any) -> None:
        door = self.door
        if door is None:
            raise RefusedError(Status.TEMPORARY_ERROR, "the connection is ending")
        replies: list[Any] = []
        kind = message.message_type
        if kind == "HandshakeResponse":
            replies = [self._details()]
        elif kind == "SelectControlType":
            if message.control_type not in (_FRBC, ControlType.NO_SELECTION):
                raise RefusedError(Status.INVALID_CONTENT, f"{message.control_type.value} is not available")
            self.controlled = message.control_type == _FRBC
            replies = self._introduction() if self.controlled else []
        elif kind == "FRBC.Instruction":
            replies = self._instructed(message)
        elif kind == "RevokeObject":
            replies = self._revoked(message)
        elif kind not in ("Handshake", "SessionRequest"):
            raise RefusedError(Status.INVALID_CONTENT, f"{kind} is not for a resource manager with FRBC")
        await door.acknowledge(message)
        for reply in replies:
            await door.send(reply)
        if kind == "SessionRequest":
            await door.close("asked for by the CEM")

    # --- instructions --------------------------------------------------------------------------------------------

    def _instructed(self, message: FRBCInstruction) -> list[Any]:
        """Accept an instruction and follow it at its time, at once when that has passed."""
        if not self.controlled:
            raise RefusedError(Status.INVALID_CONTENT, "FRBC is not selected")
        if message.actuator_id != self._actuator or message.operation_mode != self._mode:
            raise RefusedError(Status.INVALID_CONTENT, "there is no such actuator or operation mode")
        if not 0 <= message.operation_mode_factor <= 1:
            raise RefusedError(Status.INVALID_CONTENT, f"factor {message.operation_mode_factor:g} is not within 0..1")
        if not self.machine.is_there:
            return [self._status(message.id, InstructionStatus.REJECTED)]
        delay = (message.execution_time - datetime.now(UTC)).total_seconds()
        self._waiting[message.id] = asyncio.create_task(self._follow(message, max(0.0, delay)))
        return [self._status(message.id, InstructionStatus.ACCEPTED)]

    async def _follow(self, message: FRBCInstruction, delay: float) -> None:
        await asyncio.sleep(delay)
        self._waiting.pop(message.id, None)
        if not self.machine.is_there:  # it left meanwhile
            await self._say(self._status(message.id, InstructionStatus.ABORTED))
            return
        power = self.machine.storage.set_power(factor_to_power(message.operation_mode_factor, self._range()))
        log.info("instruction followed", extra={"resource": self.name, "power_kw": power})
        await self._say(
            self._status(message.id, InstructionStatus.STARTED),
            self._actuator_status(),
            self._status(message.id, InstructionStatus.SUCCEEDED),
        )

    def _revoked(self, message: Any) -> list[Any]:
        task = self._waiting.pop(message.object_id, None)
        if task is None:
            raise RefusedError(Status.INVALID_CONTENT, f"no instruction {message.object_id} is waiting")
        task.cancel()
        return [self._status(message.object_id, InstructionStatus.REVOKED)]

    # --- life ----------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Let time pass for the device and report what changes."""
        last = reported = self._clock()
        while True:
            await asyncio.sleep(self._step_seconds)
            now = self._clock()
            storage, was_there, power = self.machine.storage, self.machine.is_there, self.machine.storage.power_kw
            storage.pass_time((now - last).total_seconds())
            last = now
            self.machine.move(now)
            if (own := self.machine.own_power(now)) != self._own_kw:
                self._own_kw = own
                storage.set_power(own)
            if not self.controlled:
                continue
            if self.machine.is_there != was_there:
                await self._say(*self._introduction())
            elif storage.power_kw != power:
                await self._say(self._actuator_status())
            if (now - reported).total_seconds() >= self._report_seconds:
                reported = now
                await self._say(self._storage_status(), self._measurement())

    async def _say(self, *messages: Any) -> None:
        with suppress(ConnectionError):  # gone: all of it is told again after the next connection
            for message in messages:
                if self.door is not None:
                    await self.door.send(message)

    # --- messages ------------------------------------------------------------------------------------------------

    def _range(self) -> Range:
        """The power range now: a charger without its EV can do nothing."""
        return self.machine.storage.limits if self.machine.is_there else Range(0.0, 0.0)

    def _details(self) -> Any:
        return ResourceManagerDetails(
            message_id=new_id(),
            resource_id=self._resource,
            name=self.name,
            roles=[Role(role=RoleType.ENERGY_STORAGE, commodity=Commodity.ELECTRICITY)],
            manufacturer="Cariflex",
            model="simulator",
            instruction_processing_delay=Duration.from_milliseconds(0),
            available_control_types=[_FRBC],
            provides_forecast=False,
            provides_power_measurement_types=[_POWER],
        )

    def _introduction(self) -> list[Any]:
        """All that a CEM has to know, in the order in which it can understand it."""
        now, machine = datetime.now(UTC), self.machine
        levels = NumberRange(start_of_range=0, end_of_range=100)
        messages = [
            self._system_description(now, isinstance(machine, Ev)),
            self._storage_status(),
            self._actuator_status(),
            FRBCUsageForecast(
                message_id=new_id(),
                start_time=now,
                elements=[FRBCUsageForecastElement(duration=Duration.from_milliseconds(_DAY), usage_rate_expected=0)],
            ),
        ]
        if isinstance(machine, Ev):
            wanted = NumberRange(start_of_range=DEPARTURE_LEVEL, end_of_range=100)
            profile = [
                FRBCFillLevelTargetProfileElement(duration=duration, fill_level_range=fill_level_range)
                for duration, fill_level_range in (
                    (Duration.from_timedelta(machine.until_departure(self._clock())), levels),
                    (Duration.from_milliseconds(_QUARTER), wanted),
                )
            ]
            messages.append(FRBCFillLevelTargetProfile(message_id=new_id(), start_time=now, elements=profile))
        else:
            leak = FRBCLeakageBehaviourElement(fill_level_range=levels, leakage_rate=0)
            messages.append(FRBCLeakageBehaviour(message_id=new_id(), valid_from=now, elements=[leak]))
        return messages

    def _system_description(self, now: datetime, goes_away: bool) -> Any:
        power = self._range()
        # percent of capacity per second; losses show in the storage's state
        per_second = 100 / self.machine.storage.capacity_kwh / 3600
        levels = NumberRange(start_of_range=0, end_of_range=100)
        element = FRBCOperationModeElement(
            fill_level_range=levels,
            fill_rate=NumberRange(start_of_range=power.low * per_second, end_of_range=power.high * per_second),
            power_ranges=[
                PowerRange(start_of_range=power.low * 1000, end_of_range=power.high * 1000, commodity_quantity=_POWER)
            ],
        )
        mode = FRBCOperationMode(
            id=self._mode, diagnostic_label="charge and discharge", elements=[element], abnormal_condition_only=False
        )
        actuator = FRBCActuatorDescription(
            id=self._actuator,
            supported_commodities=[Commodity.ELECTRICITY],
            operation_modes=[mode],
            transitions=[],
            timers=[],
        )
        storage = FRBCStorageDescription(
            fill_level_label="% of capacity",
            provides_leakage_behaviour=not goes_away,
            provides_fill_level_target_profile=goes_away,
            provides_usage_forecast=True,
            fill_level_range=levels,
        )
        return FRBCSystemDescription(message_id=new_id(), valid_from=now, actuators=[actuator], storage=storage)

    def _storage_status(self) -> Any:
        storage = self.machine.storage
        return FRBCStorageStatus(
            message_id=new_id(), present_fill_level=100 * storage.energy_kwh / storage.capacity_kwh
        )

    def _actuator_status(self) -> Any:
        return FRBCActuatorStatus(
            message_id=new_id(),
            actuator_id=self._actuator,
            active_operation_mode_id=self._mode,
            operation_mode_factor=power_to_factor(self.machine.storage.power_kw, self._range()),
        )

    def _measurement(self) -> Any:
        watts = PowerValue(commodity_quantity=_POWER, value=self.machine.storage.power_kw * 1000)
        return PowerMeasurement(message_id=new_id(), measurement_timestamp=datetime.now(UTC), values=[watts])

    def _status(self, instruction: Any, status: Any) -> Any:
        return InstructionStatusUpdate(
            message_id=new_id(), instruction_id=instruction, status_type=status, timestamp=datetime.now(UTC)
        )
