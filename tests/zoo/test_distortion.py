"""Images distorted anew each time they are seen."""

from dataclasses import replace

import pytest
import torch

from weightspace.zoo.distortion import GAIN, NOISE, OFFSET, augmented, distorted, shifts
from weightspace.zoo.networks import hash31
from weightspace.zoo.plan import plan
from weightspace.zoo.recipes import zoo_recipe
from weightspace.zoo.training import train_networks


def images(networks: int, count: int = 4, size: int = 16) -> torch.Tensor:
    return torch.randn(networks, count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_an_image_is_distorted_alike_whichever_networks_train_beside_its_own() -> None:
    x = images(3)
    together = augmented(x, torch.tensor([5, 9, 11]), 7)
    alone = augmented(x[1:2], torch.tensor([9]), 7)
    assert torch.equal(together[1], alone[0])


def test_every_step_every_network_and_every_image_is_distorted_in_its_own_way() -> None:
    x = images(1, 1).expand(2, 2, -1, -1, -1)
    first, later = augmented(x, torch.tensor([5, 9]), 7), augmented(x, torch.tensor([5, 9]), 8)
    seen = [*first.flatten(0, 1), *later.flatten(0, 1)]
    assert all(not torch.allclose(a, b, atol=0.05) for i, a in enumerate(seen) for b in seen[:i])


def test_an_even_picture_keeps_its_place_and_changes_colour_by_no_more_than_is_said() -> None:
    """Of one colour: inside, only colour and noise can change it."""
    x = torch.full((1, 200, 3, 16, 16), 2.0)
    inside = augmented(x, torch.tensor([3]), 0)[..., 6:10, 6:10]
    assert (inside - 2).abs().max() <= 2 * GAIN + OFFSET + NOISE + 1e-4
    shades = inside.mean((3, 4))
    assert shades.std() > 0.15  # gains and offsets are used: their standard deviation is (2 * .2 + .2) / 3.5
    assert shades.mean() == pytest.approx(2, abs=0.06)


def test_pictures_are_moved_by_three_pixels_to_each_side_on_average_by_none() -> None:
    """A dot in the middle: turning, zooming and shearing leave it there, so only the shift moves it, and is itself
    turned and zoomed: by at most 3 (cos 15 + sin 15 degrees) / 0.9 = 4.1."""
    x = torch.zeros(1, 400, 3, 33, 33)
    x[..., 16, 16] = 30
    seen = augmented(x, torch.tensor([3]), 0).mean(2)[0].flatten(1).argmax(1)
    rows, columns = seen // 33 - 16, seen % 33 - 16
    for moved in (rows, columns):
        assert 3 <= moved.abs().max() <= 4
        assert abs(float(moved.float().mean())) < 0.4  # four standard errors


def test_a_network_with_augmentation_is_trained_on_other_images_than_one_without() -> None:
    config = zoo_recipe("digits-small")
    one = replace(plan(config, 0), epochs=1, image_count=128)
    torch.testing.assert_close(distorted(images(1), one, torch.tensor([one.seed]), 0), images(1), atol=0, rtol=0)
    plain, augment = train_networks([one])[0], train_networks([replace(one, augment=True)])[0]
    assert plain.weights is not None and augment.weights is not None
    assert abs(plain.weights - augment.weights).max() > 1e-3
    again = train_networks([replace(one, augment=True)])[0]
    assert again.weights is not None and (again.weights == augment.weights).all()


def test_the_hash_of_int32_has_the_bits_of_int64() -> None:
    """Only low bits count, and those wrap: sums beyond 31 bits among them."""
    edges = torch.tensor([0, 1, 2**31 - 1, 2**31 - 2, 0x2C1B3C6D, 0x55555555])
    numbers = torch.cat([edges, torch.randint(2**31, (20_000,), generator=torch.Generator().manual_seed(0))])
    assert torch.equal(hash31(numbers.int()).long(), hash31(numbers))
    others = numbers.flip(0)
    assert torch.equal(hash31(numbers.int() + others.int()).long(), hash31(numbers + others))


def test_shifts_are_even_and_each_network_image_and_step_has_its_own() -> None:
    drawn = shifts(torch.tensor([5, 2**40 + 9]), 3, 9_000, 4)
    assert drawn.shape == (2, 9_000, 2) and drawn.min() == 0 and drawn.max() == 8
    counts = torch.stack([drawn.flatten().bincount(minlength=9)])
    assert (counts - 4_000).abs().max() < 250  # four standard errors of 36,000 draws among nine
    again = shifts(torch.tensor([2**40 + 9]), 3, 9_000, 4)
    assert torch.equal(again[0], drawn[1]), "whichever networks train beside it"
    for other in (shifts(torch.tensor([5]), 4, 9_000, 4)[0], drawn[1], drawn[0].flip(1), drawn[0].roll(1, 0)):
        assert float((other == drawn[0]).float().mean()) < 0.13  # one in nine by chance
