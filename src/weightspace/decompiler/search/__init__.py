"""Programs looked for: operations tried, matched, recognised, proposed, and checked one by one."""
