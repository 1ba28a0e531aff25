"""`mmkp data check`: every row of a dataset read, decoded and judged before anything is trained on it."""

from mmkp.data.check.findings import SEVERITY, Finding, Report
from mmkp.data.check.run import Checked, check, judge
from mmkp.data.check.source import is_table, open_source

__all__ = ["SEVERITY", "Checked", "Finding", "Report", "check", "is_table", "judge", "open_source"]
