-- question: how many of each month's devices are new, retained, resurrected, and how many of the month before are churned?
-- grain: dimensions, month, kind
-- inputs: activity, links
-- owner: ameles-queries
-- Attributes are the month's; of the churned, those of the month before.

-- statement: value
SELECT {dims}a.month,
  CASE WHEN f.month = a.month THEN 'new' WHEN p.device IS NOT NULL THEN 'retained' ELSE 'resurrected' END AS growth_kind,
  count(*) AS devices
FROM activity a
JOIN (SELECT device, min(month) AS month FROM activity GROUP BY device) f ON f.device = a.device
LEFT JOIN activity p ON p.device = a.device AND next_month(p.month) = a.month
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month, growth_kind
UNION ALL
SELECT {dims}next_month(a.month), 'churned', count(*)
FROM activity a
LEFT JOIN activity n ON n.device = a.device AND n.month = next_month(a.month)
WHERE next_month(a.month) BETWEEN {from} AND {to} AND n.device IS NULL{filter}
GROUP BY {by}a.month

-- statement: people
SELECT {dims}a.month,
  CASE WHEN f.month = a.month THEN 'new' WHEN p.device IS NOT NULL THEN 'retained' ELSE 'resurrected' END AS growth_kind,
  people(CAST(1 AS BIGINT UNSIGNED), a.device, {k}) AS devices
  , people(CAST(1 AS BIGINT UNSIGNED), l."user", {k}) AS users -- if user
FROM activity a
JOIN (SELECT device, min(month) AS month FROM activity GROUP BY device) f ON f.device = a.device
LEFT JOIN activity p ON p.device = a.device AND next_month(p.month) = a.month
LEFT JOIN links l ON l.device = a.device AND l.month = a.month -- if user
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month, growth_kind
UNION ALL
SELECT {dims}next_month(a.month), 'churned',
  people(CAST(1 AS BIGINT UNSIGNED), a.device, {k})
  , people(CAST(1 AS BIGINT UNSIGNED), l."user", {k}) -- if user
FROM activity a
LEFT JOIN activity n ON n.device = a.device AND n.month = next_month(a.month)
LEFT JOIN links l ON l.device = a.device AND l.month = a.month -- if user
WHERE next_month(a.month) BETWEEN {from} AND {to} AND n.device IS NULL{filter}
GROUP BY {by}a.month
