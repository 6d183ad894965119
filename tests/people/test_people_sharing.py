"""One picture by its address: for whoever has that, until a time, and nothing else with it."""

import pytest

from people.sharing import DAY_S, LONGEST_DAYS
from tests.people.house import House


@pytest.fixture
def image(house: House):
    return house.paint("ann").images[0]


def shared(house: House, image, days: str = "7") -> str:
    answer = house.visit("ann").post("/shared", json={"image": image.id, "days": days})
    return f"/{answer.json()['path']}"


def test_whoever_has_the_address_sees_the_picture_until_its_time(house: House, image) -> None:
    path = shared(house, image, "2")
    nobody = house.visit()
    answer = nobody.get(path)
    assert answer.content == image.path.read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "no-store"
    assert "sandbox" in answer.headers["content-security-policy"]
    house.clock.now += 2 * DAY_S - 1
    assert nobody.get(path).status_code == 200
    house.clock.now += 1
    assert nobody.get(path).status_code == 404


def test_only_its_owner_can_share_a_picture(house: House, image) -> None:
    asked = {"image": image.id, "days": "7"}
    assert house.visit().post("/shared", json=asked).status_code == 401
    for name in ("bob", "olga"):
        assert house.visit(name).post("/shared", json=asked).status_code == 404


def test_what_is_deleted_or_whose_owner_is_gone_is_shared_no_more(house: House, image) -> None:
    path = shared(house, image)
    house.jobs.delete([image.id], owner="ann")
    assert house.visit().get(path).status_code == 404
    house.jobs.restore([image.id], owner="ann")
    assert house.visit().get(path).status_code == 200
    house.people.remove("ann")
    assert house.visit().get(path).status_code == 404


def test_no_other_address_leads_to_a_picture(house: House, image) -> None:
    path = shared(house, image)
    login = house.visit("ann").cookies["pochade_login"]
    for wrong in (path[:-2] + "xx", f"/shared/{login}", "/shared/x.y", f"/shared/{image.id}"):
        assert house.visit().get(wrong).status_code == 404, wrong
    ticket = path.removeprefix("/shared/")
    visitor = house.visit()
    visitor.cookies.set("pochade_login", ticket)
    assert visitor.get("/studio/state").status_code == 401


@pytest.mark.parametrize("days", ["0", "-1", str(LONGEST_DAYS + 1), "x", "", "²", "1e9"])
def test_a_time_has_its_limits(house: House, image, days: str) -> None:
    answer = house.visit("ann").post("/shared", json={"image": image.id, "days": days})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("days: expected 1 to 30")
