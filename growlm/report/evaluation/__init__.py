"""What evaluations found, as one page and as tables: ours, growth runs stage by stage, published rows."""

from growlm.report.evaluation.page import write_page

__all__ = ["write_page"]
