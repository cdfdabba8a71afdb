// Captures a job if the quota of the month allows it: node capture.mjs <source URL> <title> <company>
const [source_url, title, company] = process.argv.slice(2);
const url = process.env.JOBTALLY_URL;
const headers = { Authorization: `Bearer ${process.env.TOKEN}` };

const response = await fetch(`${url}/api/jobs/quota`, { headers });
if (!response.ok) throw new Error(`the quota answers ${response.status}`);
const quota = await response.json();

if (quota.remaining > 0 || quota.remaining === -1) {
  const captured = await fetch(`${url}/api/jobs`, {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify({ source_url, title, company }),
  });
  const { outcome, job } = await captured.json();
  console.log(`${captured.status} ${outcome} ${job.id}`);
} else {
  console.log(`The quota of the month is used up until ${quota.reset_date}.`);
}
