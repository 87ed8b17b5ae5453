"""The subjects of exams, by category; a subject may be in two."""

from __future__ import annotations


def _subjects(**categories: str) -> dict[str, tuple[str, ...]]:
    """The categories of each subject, in the order of the subjects' names."""
    split = {category: names.split() for category, names in categories.items()}
    subjects = sorted({name for names in split.values() for name in names})
    return {name: tuple(category for category in split if name in split[category]) for name in subjects}


MMLU = _subjects(
    stem="""
        abstract_algebra anatomy astronomy college_biology college_chemistry
        college_computer_science college_mathematics college_physics computer_security
        conceptual_physics electrical_engineering elementary_mathematics high_school_biology
        high_school_chemistry high_school_computer_science high_school_mathematics
        high_school_physics high_school_statistics machine_learning
    """,
    humanities="""
        formal_logic high_school_european_history high_school_us_history high_school_world_history
        international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy
        prehistory professional_law world_religions
    """,
    social_science="""
        econometrics high_school_geography high_school_government_and_politics
        high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality
        professional_psychology public_relations security_studies sociology us_foreign_policy
    """,
    other="""
        business_ethics clinical_knowledge college_medicine global_facts human_aging management
        marketing medical_genetics miscellaneous nutrition professional_accounting
        professional_medicine virology
    """,
)
"""arXiv:2009.03300, 57 subjects."""

CMMLU = _subjects(
    stem="""
        anatomy astronomy college_actuarial_science college_engineering_hydrology
        college_mathematics college_medical_statistics computer_science conceptual_physics
        electrical_engineering elementary_mathematics genetics high_school_biology
        high_school_chemistry high_school_mathematics high_school_physics machine_learning virology
    """,
    humanities="""
        arts chinese_history chinese_literature college_law global_facts international_law
        jurisprudence logical marxist_theory philosophy professional_law world_history
        world_religions
    """,
    social_science="""
        ancient_chinese business_ethics chinese_civil_service_exam chinese_food_culture
        chinese_foreign_policy chinese_teacher_qualification college_education economics education
        elementary_chinese ethnology high_school_geography high_school_politics journalism
        management marketing modern_chinese professional_accounting professional_psychology
        public_relations security_study sociology
    """,
    other="""
        agronomy chinese_driving_rule clinical_knowledge college_medicine computer_security
        construction_project_management elementary_commonsense elementary_information_and_technology
        food_science human_sexuality legal_and_moral_basis nutrition professional_medicine
        sports_science traditional_chinese_medicine
    """,
    china="""
        ancient_chinese chinese_civil_service_exam chinese_driving_rule chinese_food_culture
        chinese_foreign_policy chinese_history chinese_literature chinese_teacher_qualification
        construction_project_management elementary_chinese elementary_commonsense ethnology
        high_school_politics modern_chinese traditional_chinese_medicine
    """,
)
"""arXiv:2306.09212, 67 subjects, of which 15 are about China."""

CEVAL = _subjects(
    stem="""
        advanced_mathematics college_chemistry college_physics college_programming
        computer_architecture computer_network discrete_mathematics electrical_engineer
        high_school_biology high_school_chemistry high_school_mathematics high_school_physics
        metrology_engineer middle_school_biology middle_school_chemistry middle_school_mathematics
        middle_school_physics operating_system probability_and_statistics veterinary_medicine
    """,
    social_science="""
        business_administration college_economics education_science high_school_geography
        high_school_politics mao_zedong_thought marxism middle_school_geography
        middle_school_politics teacher_qualification
    """,
    humanities="""
        art_studies chinese_language_and_literature high_school_chinese high_school_history
        ideological_and_moral_cultivation law legal_professional logic middle_school_history
        modern_chinese_history professional_tour_guide
    """,
    other="""
        accountant basic_medicine civil_servant clinical_medicine
        environmental_impact_assessment_engineer fire_engineer physician plant_protection
        sports_science tax_accountant urban_and_rural_planner
    """,
    hard="""
        advanced_mathematics college_chemistry college_physics discrete_mathematics
        high_school_chemistry high_school_mathematics high_school_physics probability_and_statistics
    """,
)
"""arXiv:2305.08322, 52 subjects, of which 8 are hard ones."""
