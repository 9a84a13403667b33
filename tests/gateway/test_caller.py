from __future__ import annotations

from wan22.errors import PermissionDenied
from wan22_gateway import gateway
from wan22_gateway.identity.caller import ADMIN, OPERATOR, SERVICE_ROLES, USER, Caller

REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


def may(method: str, *roles: int) -> bool:
    try:
        Caller("alice", frozenset(roles)).check(method)
    except PermissionDenied:
        return False
    return True


def test_every_service_has_its_role_and_no_other_one_calls_it_but_an_administrators() -> None:
    assert SERVICE_ROLES.keys() == {*gateway.SERVICES, REFLECTION}
    for service, needed in SERVICE_ROLES.items():
        for role in (USER, OPERATOR, ADMIN):
            assert may(f"/{service}/Any", role) is (needed in {None, role} or role == ADMIN)
        assert may(f"/{service}/Any") is (needed is None)


def test_a_service_that_nobody_has_thought_of_is_an_administrators() -> None:
    assert may("/wan22.v1.NewService/Read", ADMIN)
    assert not may("/wan22.v1.NewService/Read", USER, OPERATOR)
