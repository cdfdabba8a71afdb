"""Prints how much of the quota of the month is used."""
import os

import requests

response = requests.get(
    f"{os.environ['JOBTALLY_URL']}/api/jobs/quota",
    headers={"Authorization": f"Bearer {os.environ['TOKEN']}"},
    timeout=10,
)
response.raise_for_status()
quota = response.json()
used, limit, remaining = quota["used"], quota["limit"], quota["remaining"]

if limit == -1:
    print(f"{used} captures used, unlimited, count starts again on {quota['reset_date']}")
else:
    percentage = 100 * used / limit
    print(f"{used} of {limit} captures used ({percentage:.1f} %), {remaining} remaining until {quota['reset_date']}")
