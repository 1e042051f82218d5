"""Make `crossent fit customers`' table: 600 customers of an internet provider that does not exist.

    python docs/make_customers.py > src/crossent/tabular/data/customers.csv

Nobody's data are in it; the dice are Python's, whose `random()` gives the same numbers in every version. A row is drawn
from the left to the right:

- `customer` identifies the row and says nothing else.
- `joined` is a day from 2019 to 2024, `contract` is "monthly", "yearly" or "two years", and `product` one of three.
- `monthly_fee` follows the product, with noise; `calls` to the help desk are Poisson, more of them for fibre.
- `satisfaction`, from 1 to 5, falls with the calls; a third of the customers did not answer.
- `region` says nothing about who leaves, and 3 % of the fees and regions are missing.
- `churned` is yes with probability p: its logit rises with the calls (1 each), the fee (0.05 per unit above 40) and a
  monthly contract (2.2), and falls with satisfaction (0.5 per step above 3) and with years as a customer (0.5 each).
"""

from __future__ import annotations

import csv
import math
import sys
from datetime import date, timedelta
from random import Random

ROWS, SEED = 600, 7
TODAY = date(2025, 1, 1)
FEES = {"dsl": 29.0, "cable": 39.0, "fibre": 54.0}


def draw(random: Random, shares: dict[str, float]) -> str:
    """Return a word, each with its share."""
    point, (*words, last) = random.random(), shares
    for word in words:
        point -= shares[word]
        if point < 0:
            return word
    return last


def poisson(random: Random, mean: float) -> int:
    """Return a count, by Knuth's product of uniform numbers."""
    count, product = 0, random.random()
    while product > math.exp(-mean):
        count, product = count + 1, product * random.random()
    return count


def customers() -> list[list[object]]:
    """Return the header and the rows."""
    random = Random(SEED)
    names = "customer joined contract product monthly_fee calls satisfaction region churned"
    rows: list[list[object]] = [[*names.split()]]
    for number in range(ROWS):
        days = int(2190 * random.random())
        contract = draw(random, {"monthly": 0.5, "yearly": 0.3, "two years": 0.2})
        product = draw(random, {"dsl": 0.35, "cable": 0.4, "fibre": 0.25})
        noise = sum(random.random() for _ in range(12)) - 6  # nearly normal, with variance 1
        fee = round(FEES[product] + 4 * noise, 2)
        calls = poisson(random, 1.4 if product == "fibre" else 0.8)
        satisfaction = min(5, max(1, 5 - calls + int(3 * random.random()) - 1))
        region = draw(random, {"north": 0.3, "south": 0.3, "east": 0.25, "west": 0.15})
        logit = -2.2 + calls + 0.05 * (fee - 40) + 2.2 * (contract == "monthly")
        logit -= 0.5 * (satisfaction - 3) + 0.5 * days / 365
        churned = random.random() < 1 / (1 + math.exp(-logit))
        row = [f"C{10007 + 37 * number}", TODAY - timedelta(days=days + 1), contract, product]
        row += [f"{fee:.2f}" if random.random() > 0.03 else ""]
        row += [calls, satisfaction if random.random() > 0.33 else "", region if random.random() > 0.03 else ""]
        rows.append([*row, "yes" if churned else "no"])
    return rows


if __name__ == "__main__":
    csv.writer(sys.stdout, lineterminator="\n").writerows(customers())
