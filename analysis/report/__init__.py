"""One self-contained, interactive HTML page of a study, or of two held against each other.

Python writes the text, the tables and one JSON document (payload); the scripts of static/ draw the
charts from it and compute what the reader asks for. No network, no build step.
"""

from analysis.report.comparison import Compared, comparison_page, write_comparison
from analysis.report.study_page import html_page, write_report

__all__ = ["Compared", "comparison_page", "html_page", "write_comparison", "write_report"]
