#!/bin/sh
# Reads the quota of the month.
curl --silent --show-error --fail-with-body "$JOBTALLY_URL/api/jobs/quota" \
  -H "Authorization: Bearer $TOKEN"
